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
  },
  test: { setupFiles: ['src/node18.setup.ts'] },
  server: {
    proxy: { '/api': { target: 'http://localhost:8080', changeOrigin: false } },
  },
})
