#include "tramo_decode.h"
#include "tramo_steps.h"

// Warnings decide nothing here, and whoever reads a child's standard error looks for the reason of a crash.
static void
drop_message(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer unused)
{
}

void
tramo_clear(void)
{
	static gsize once = 0;
	if (g_once_init_enter(&once)) {
		g_log_set_handler("VIPS", G_LOG_LEVEL_WARNING, drop_message, NULL);
		g_once_init_leave(&once, 1);
	}
	vips_error_clear();
}

// first_frame opens lazily: it reads the header, and no pixels. The loader is named, and never guessed, so that bytes reach
// no other decoder.
static VipsImage *
first_frame(const void *buf, size_t len, int loader, int strict)
{
	void *in = (void *) buf;
	VipsImage *image = NULL;
	VipsAccess access = VIPS_ACCESS_SEQUENTIAL;
	VipsFailOn fail_on = strict ? VIPS_FAIL_ON_ERROR : VIPS_FAIL_ON_NONE;
	int failed = -1;
	switch (loader) {
	case TRAMO_JPEG:
		failed = vips_jpegload_buffer(in, len, &image, "access", access, "fail_on", fail_on, NULL);
		break;
	case TRAMO_PNG:
		failed = vips_pngload_buffer(in, len, &image, "access", access, "fail_on", fail_on, NULL);
		break;
	case TRAMO_GIF:
		failed = vips_gifload_buffer(in, len, &image, "access", access, "fail_on", fail_on, NULL);
		break;
	case TRAMO_WEBP:
		failed = vips_webpload_buffer(in, len, &image, "access", access, "fail_on", fail_on, NULL);
		break;
	case TRAMO_TIFF:
		failed = vips_tiffload_buffer(in, len, &image, "access", access, "fail_on", fail_on, NULL);
		break;
	case TRAMO_HEIF:
		failed = vips_heifload_buffer(in, len, &image, "access", access, "fail_on", fail_on, NULL);
		break;
	}
	if (failed) {
		g_clear_object(&image);
	}
	return image;
}

int
tramo_head(const void *buf, size_t len, int loader, TramoHead *head)
{
	VipsImage *image = first_frame(buf, len, loader, FALSE);
	if (!image)
		return -1;
	head->width = vips_image_get_width(image);
	head->height = vips_image_get_height(image);
	// Not vips_image_get_n_pages, which calls it one page when there are more than 10,000.
	head->frames = 1;
	if (vips_image_get_typeof(image, VIPS_META_N_PAGES) && vips_image_get_int(image, VIPS_META_N_PAGES, &head->frames))
		head->frames = 1;
	g_object_unref(image);
	return 0;
}

// tramo_rows counts the rows that can be read, from the top, before the first that cannot.
int
tramo_rows(const void *buf, size_t len, int loader, int *rows)
{
	VipsImage *image = first_frame(buf, len, loader, FALSE);
	if (!image)
		return -1;
	*rows = 0;
	VipsRegion *region = vips_region_new(image);
	int height = vips_image_get_height(image);
	VipsRect band = {0, 0, vips_image_get_width(image), 0};
	while (*rows < height) {
		band.top = *rows;
		band.height = VIPS_MIN(8, height - *rows);
		if (vips_region_prepare(region, &band))
			break;
		*rows += band.height;
	}
	g_object_unref(region);
	g_object_unref(image);
	return 0;
}

STEP(fill_up(VipsImage *in, int height), vips_embed(in, &out, 0, 0, vips_image_get_width(in), height, "extend", VIPS_EXTEND_BLACK, NULL))
STEP(as_srgb(VipsImage *in), vips_colourspace(in, &out, VIPS_INTERPRETATION_sRGB, NULL))
STEP(scaled(VipsImage *in, double across, double down), vips_resize(in, &out, across, "vscale", down, NULL))
STEP(premultiplied(VipsImage *in), vips_premultiply(in, &out, NULL))
STEP(unpremultiplied(VipsImage *in), vips_unpremultiply(in, &out, NULL))
STEP(in_format(VipsImage *in, VipsBandFormat format), vips_cast(in, &out, format, NULL))
STEP(in_bytes(VipsImage *in), vips_cast(in, &out, VIPS_FORMAT_UCHAR, NULL))
STEP(four_bands(VipsImage *in), vips_extract_band(in, &out, 0, "n", 4, NULL))
STEP(mirrored(VipsImage *in), vips_flip(in, &out, VIPS_DIRECTION_HORIZONTAL, NULL))

// fitted scales to at most size pixels on the long side, at least one on the short one.
static VipsImage *
fitted(VipsImage *in, int size)
{
	if (!in)
		return NULL;
	int width = vips_image_get_width(in), height = vips_image_get_height(in);
	double scale = (double) size / VIPS_MAX(width, height);
	if (scale >= 1)
		return in;
	double across = VIPS_MAX(scale, 1.0 / width), down = VIPS_MAX(scale, 1.0 / height);
	if (!vips_image_hasalpha(in))
		return scaled(in, across, down);
	// Else the colours hidden below full transparency would show as a fringe.
	VipsBandFormat format = vips_image_get_format(in);
	return in_format(unpremultiplied(scaled(premultiplied(in), across, down)), format);
}

// in_srgb converts by the profile that the image carries, so that wide gamuts keep their colours. CMYK without one is
// taken for what most printers mean. A broken profile costs its colours, not the image.
static VipsImage *
in_srgb(VipsImage *in)
{
	if (!in)
		return NULL;
	gboolean cmyk = vips_image_get_interpretation(in) == VIPS_INTERPRETATION_CMYK;
	if (cmyk || vips_image_get_typeof(in, VIPS_META_ICC_NAME)) {
		VipsImage *out = NULL;
		if (!vips_icc_transform(in, &out, "srgb", "embedded", TRUE, "input_profile", cmyk ? "cmyk" : "srgb",
				"black_point_compensation", TRUE, NULL)) {
			g_object_unref(in);
			in = out;
		}
	}
	return as_srgb(in);
}

// to_pixels takes over in, and leaves everything that is not a pixel behind.
static int
to_pixels(VipsImage *in, TramoPixels *out)
{
	if (!in)
		return -1;
	out->width = vips_image_get_width(in);
	out->height = vips_image_get_height(in);
	out->bands = vips_image_get_bands(in);
	out->data = vips_image_write_to_memory(in, &out->length);
	g_object_unref(in);
	return out->data ? 0 : -1;
}

static VipsImage *
from_pixels(const TramoPixels *in)
{
	VipsImage *image = vips_image_new_from_memory(in->data, in->length, in->width, in->height, in->bands, VIPS_FORMAT_UCHAR);
	return interpreted(image, VIPS_INTERPRETATION_sRGB);
}

// tramo_decode decodes the first frame, of anything but a JPEG, to at most size pixels on the long side, in sRGB, and turns it. Of a image that can
// be read in part, rows says how many; 0 means all.
int
tramo_decode(const void *buf, size_t len, int loader, int strict, int rows, int size, int clockwise, int mirror, TramoPixels *out)
{
	VipsImage *image = first_frame(buf, len, loader, strict);
	if (image && rows > 0) {
		int width = vips_image_get_width(image), height = vips_image_get_height(image);
		image = fill_up(cropped(image, width, rows), height);
	}
	return tramo_finish(fitted(image, size), clockwise, mirror, out);
}

int
tramo_finish(VipsImage *image, int clockwise, int mirror, TramoPixels *out)
{
	image = in_bytes(in_srgb(image)); // after scaling: it is fewer pixels by then
	if (image && vips_image_get_bands(image) > 4)
		image = four_bands(image);
	// Once only: turned lazily, a image would be decoded out of order.
	image = in_memory(image);
	if (image && clockwise)
		image = turned(image, clockwise);
	if (image && mirror)
		image = mirrored(image);
	return to_pixels(image, out);
}

int
tramo_fit(const TramoPixels *in, int size, TramoPixels *out)
{
	return to_pixels(in_bytes(fitted(from_pixels(in), size)), out);
}

// tramo_webp sets data and length of file. Effort 2 takes half the time of libwebp's default, 4, looks as good, and makes up to
// 6 % more bytes; effort 3 takes as long as 4, and 1 makes up to 22 % more bytes.
int
tramo_webp(const TramoPixels *in, int quality, TramoPixels *file)
{
	VipsImage *image = from_pixels(in);
	int failed = !image || vips_webpsave_buffer(image, &file->data, &file->length, "Q", quality, "effort", 2, "strip", TRUE, NULL);
	g_clear_object(&image);
	return failed ? -1 : 0;
}
