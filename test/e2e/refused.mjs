// Sends each request of TRAMO_TEST_REQUESTS with a body of so many bytes, by node:http, as a whole and piped, and by fetch, all at once.
// Usage: node refused.mjs. Prints {"http <name>": what came of it, "fetch <name>": ...}: a status and the type of a problem, or an error.
import http from 'node:http'
import { Readable } from 'node:stream'

const { requests, size } = JSON.parse(process.env.TRAMO_TEST_REQUESTS)
const body = Buffer.alloc(size, 'x')

// As createReadStream gives a file to a client.
const stream = () => Readable.from((function* () { for (let at = 0; at < size; at += 65536) yield body.subarray(at, at + 65536) })())

const byHTTP = ({ method, url, headers }, piped) => new Promise((resolve) => {
  const request = http.request(url, { method, headers: { ...headers, 'Content-Length': size } }, (response) => {
    let text = ''
    response.on('data', (d) => (text += d))
    response.on('end', () => resolve(`${response.statusCode} ${text && JSON.parse(text).type}`))
    response.on('error', (e) => resolve(`cut off: ${e.code}`))
  })
  request.on('error', (e) => resolve(e.code ?? String(e)))
  if (piped) stream().pipe(request)
  else request.end(body)
})

const byFetch = async ({ method, url, headers }) => {
  let response
  try {
    response = await fetch(url, { method, headers, body })
    const text = await response.text()
    return `${response.status} ${text && JSON.parse(text).type}`
  } catch (e) {
    return `${response?.status} ${e.cause?.code ?? String(e.cause ?? e)}`
  }
}

const results = {}
await Promise.all(requests.flatMap((r) => [
  byHTTP(r, false).then((said) => { results[`http ${r.name}`] = said }),
  byHTTP(r, true).then((said) => { results[`piped ${r.name}`] = said }),
  byFetch(r).then((said) => { results[`fetch ${r.name}`] = said }),
]))
process.stdout.write(JSON.stringify(results), () => process.exit(0)) // what is still being sent is of no interest
