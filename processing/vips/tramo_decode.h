// The parts of libvips that bimg does not reach: see decode.go.
#include <vips/vips.h>

// The loaders, in the order of the Go constants.
enum { TRAMO_JPEG = 1, TRAMO_PNG, TRAMO_GIF, TRAMO_WEBP, TRAMO_TIFF, TRAMO_HEIF };

typedef struct {
	int width, height; // pixels, unturned
	int frames;        // or pages, or top-level images
} TramoHead;

// Pixels are 8 bits a band in sRGB: 3 bands, or 4 with alpha last. data is the caller's to g_free.
typedef struct {
	void *data;
	size_t length;
	int width, height, bands;
} TramoPixels;

// Every function below returns 0, or -1 with the cause in libvips' error buffer.
void tramo_clear(void);
int tramo_head(const void *buf, size_t len, int loader, TramoHead *head);
int tramo_rows(const void *buf, size_t len, int loader, int *rows);
int tramo_decode(const void *buf, size_t len, int loader, int strict, int rows, int size, int clockwise, int mirror, TramoPixels *out);
int tramo_fit(const TramoPixels *in, int size, TramoPixels *out);
int tramo_webp(const TramoPixels *in, int quality, TramoPixels *file);

// tramo_finish takes over an image that has its size, or NULL, and makes pixels of it.
int tramo_finish(VipsImage *image, int clockwise, int mirror, TramoPixels *out);
