// Verifies a receipt as docs/reference/receipts.md says, with the code that stands there.
// Usage: node receipt.mjs DOC JWKS_URL ISSUER RECEIPT. Prints what the receipt claims.
import { readFileSync } from 'node:fs'
import { webcrypto } from 'node:crypto'

globalThis.crypto ??= webcrypto // Node 18
const [doc, url, issuer, receipt] = process.argv.slice(2)
const example = readFileSync(doc, 'utf8').match(/```js\n([^]*?)```/)[1]
const verifyReceipt = new Function(`${example}; return verifyReceipt`)()
const jwks = await (await fetch(url)).json()
console.log(JSON.stringify(await verifyReceipt(receipt, jwks, issuer)))
