// The upload API that Tramo replaces, as its clients use it: a form with one photo, which is read into memory as a whole,
// put to S3, and made into thumbnails, all before the answer.
//
//	node server.mjs --endpoint http://127.0.0.1:9000 --bucket photos
import { randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import express from 'express'
import multer from 'multer'
import sharp from 'sharp'

const { endpoint, bucket } = parseArgs({ options: { endpoint: { type: 'string' }, bucket: { type: 'string' } } }).values
const s3 = new S3Client({ endpoint, forcePathStyle: true })
const upload = multer({ storage: multer.memoryStorage(), limits: { fileSize: 100 * 1024 * 1024 } })

// The same sizes and quality as Tramo's thumbnails.
const widths = [160, 480, 1600]
const quality = 78

const put = (Key, Body, ContentType) => s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body, ContentType }))

const app = express()

app.post('/upload', upload.single('photo'), async (request, response) => {
	const { buffer, mimetype } = request.file
	const key = `legacy/${randomUUID()}`
	await put(`${key}/original`, buffer, mimetype)
	for (const width of widths) {
		const picture = await sharp(buffer).rotate().resize(width, width, { fit: 'inside', withoutEnlargement: true }).webp({ quality }).toBuffer()
		await put(`${key}/${width}.webp`, picture, 'image/webp')
	}
	response.status(201).json({ key })
})

app.use((error, _request, response, _next) => {
	console.error(error.message)
	response.status(error.status ?? 500).json({ error: error.message })
})

const server = app.listen(0, '127.0.0.1', () => console.log(`legacy on 127.0.0.1:${server.address().port}`))
process.on('SIGTERM', () => { server.closeAllConnections(); server.close(() => process.exit(0)) })
