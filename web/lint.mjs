// Checks server/openapi.yaml with Redocly's rules, which openapi-typescript depends on: names, examples, components that are
// unused or undefined.
import { createConfig, formatProblems, getTotals, lint } from '@redocly/openapi-core'

const config = await createConfig({
  extends: ['recommended-strict'],
  rules: {
    'operation-4xx-response': 'off', // static files have no errors
    'operation-2xx-response': 'off', // content is a redirect
    'tags-alphabetical': 'off',
    'no-path-trailing-slash': 'off', // the list of problems is a folder
    'tag-description': 'error',
  },
})
const problems = await lint({ ref: new URL('../server/openapi.yaml', import.meta.url).pathname, config })
const totals = getTotals(problems)
formatProblems(problems, { totals })
process.exit(totals.errors + totals.warnings > 0 ? 1 : 0)
