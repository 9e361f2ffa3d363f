// Uploads one file with an unmodified tus-js-client.
// Usage: node tus.mjs WEB_DIR ENDPOINT FILE, token and metadata in TRAMO_TEST_TOKEN and TRAMO_TEST_METADATA.
// Prints each exchange as a line {"method", "from", "sent", "answered", "status", "offset", "location"}, times in seconds since 1970.
import { createReadStream, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'

const [webDir, endpoint, file] = process.argv.slice(2)
const tus = createRequire(resolve(webDir, 'package.json'))('tus-js-client')
const now = () => (performance.timeOrigin + performance.now()) / 1000
const number = (text) => (text === undefined || text === null || text === '' ? -1 : Number(text))
const sent = new Map()
const note = (request, response) =>
  console.log(
    JSON.stringify({
      method: request.getMethod(),
      from: number(request.getHeader('Upload-Offset')),
      sent: sent.get(request),
      answered: now(),
      status: response ? response.getStatus() : 0,
      offset: response ? number(response.getHeader('Upload-Offset')) : -1,
      location: (response && response.getHeader('Location')) || '',
    }),
  )

const upload = new tus.Upload(createReadStream(file), {
  endpoint,
  uploadSize: statSync(file).size,
  retryDelays: JSON.parse(process.env.TRAMO_TEST_DELAYS),
  headers: { Authorization: `Bearer ${process.env.TRAMO_TEST_TOKEN}` },
  metadata: JSON.parse(process.env.TRAMO_TEST_METADATA),
  chunkSize: Number(process.env.TRAMO_TEST_CHUNK) || Infinity,
  uploadDataDuringCreation: process.env.TRAMO_TEST_WITH_BODY === 'true',
  onBeforeRequest: (request) => void sent.set(request, now()),
  onAfterResponse: (request, response) => note(request, response),
  onShouldRetry(error, attempt, options) {
    if (!error.originalResponse) note(error.originalRequest)
    const status = error.originalResponse ? error.originalResponse.getStatus() : 0
    return !(status >= 400 && status < 500) || status === 409 || status === 423
  },
  onError(error) {
    console.error(String(error))
    process.exit(1)
  },
})
upload.start()
