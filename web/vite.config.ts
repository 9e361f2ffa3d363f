import { defineConfig } from 'vitest/config'

export default defineConfig({
  // Relative, so that the server may mount the page under any path.
  base: './',
  build: {
    target: 'es2020',
    // Go embeds dist, and needs at least one file there in a fresh checkout: public/.gitkeep is
    // copied back after each build empties the folder.
    emptyOutDir: true,
    assetsInlineLimit: 0,
    rollupOptions: { input: ['index.html', 'docs.html'] },
    // Swagger UI, which only /docs loads.
    chunkSizeWarningLimit: 2000,
  },
  test: { setupFiles: ['src/node18.setup.ts'] },
  server: {
    proxy: Object.fromEntries(
      ['/api', '/openapi.yaml'].map((path) => [path, { target: 'http://localhost:8080', changeOrigin: false }]),
    ),
  },
})
