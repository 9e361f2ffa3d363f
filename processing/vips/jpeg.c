#include "tramo_jpeg.h"
#include "tramo_steps.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#if JPEG_LIB_VERSION >= 70
#define SAMPLES_ACROSS(component) ((component)->DCT_h_scaled_size)
#define SAMPLES_DOWN(component) ((component)->DCT_v_scaled_size)
#define LEAST_SAMPLES_ACROSS(file) ((file)->min_DCT_h_scaled_size)
#define LEAST_SAMPLES_DOWN(file) ((file)->min_DCT_v_scaled_size)
#else
#define SAMPLES_ACROSS(component) ((component)->DCT_scaled_size)
#define SAMPLES_DOWN(component) ((component)->DCT_scaled_size)
#define LEAST_SAMPLES_ACROSS(file) ((file)->min_DCT_scaled_size)
#define LEAST_SAMPLES_DOWN(file) ((file)->min_DCT_scaled_size)
#endif

enum { MAX_PLANES = 4, MIDDLE = 128 };

// A Plane is one component, in whole blocks, some of them outside the image.
typedef struct {
	unsigned char *samples;
	int stride, rows; // in memory
	int step;         // rows that libjpeg decodes at a time
} Plane;

typedef struct {
	struct jpeg_error_mgr manager; // first: libjpeg knows only this
	jmp_buf gave_up;
	int in_header, damaged;
	struct jpeg_decompress_struct file;
	Plane planes[MAX_PLANES];
	unsigned steps; // decoded
	JOCTET *profile;
	unsigned profile_length;
} Reader;

static void
give_up(j_common_ptr file)
{
	longjmp(((Reader *) file->err)->gave_up, 1);
}

// hear counts the warnings that say that pixels are lost. Others are about metadata, about parameters that a sequential JPEG
// ignores (JWRN_NOT_SEQUENTIAL), or about stray bytes between the segments of the header, which every decoder skips. Between
// scans such bytes are data that a damaged scan left over.
static void
hear(j_common_ptr file, int level)
{
	Reader *reader = (Reader *) file->err;
	if (level >= 0) // a trace
		return;
	switch (reader->manager.msg_code) {
	case JWRN_EXTRANEOUS_DATA:
		if (reader->in_header)
			break;
		// fall through
	case JWRN_ARITH_BAD_CODE:
	case JWRN_BOGUS_PROGRESSION:
	case JWRN_HIT_MARKER:
	case JWRN_HUFF_BAD_CODE:
	case JWRN_JPEG_EOF:
	case JWRN_MUST_RESYNC:
		reader->damaged = 1;
	}
}

// make_planes allocates zeros: what is not decoded must not be another image's.
static int
make_planes(Reader *reader)
{
	struct jpeg_decompress_struct *file = &reader->file;
	for (int i = 0; i < file->num_components; i++) {
		jpeg_component_info *component = &file->comp_info[i];
		Plane *plane = &reader->planes[i];
		plane->stride = component->width_in_blocks * SAMPLES_ACROSS(component);
		plane->step = component->v_samp_factor * SAMPLES_DOWN(component);
		plane->rows = file->total_iMCU_rows * plane->step;
		if (!(plane->samples = g_try_malloc0_n(plane->rows, plane->stride))) {
			vips_error("jpeg", "out of memory");
			return -1;
		}
	}
	return 0;
}

// read_planes returns -1 if there is nothing to show. Nothing here may stay in a local variable: libjpeg leaves by longjmp.
static int
read_planes(Reader *reader, const void *buf, size_t len, int shrink)
{
	struct jpeg_decompress_struct *file = &reader->file;
	if (setjmp(reader->gave_up)) {
		char why[JMSG_LENGTH_MAX];
		reader->manager.format_message((j_common_ptr) file, why);
		vips_error("jpeg", "%s", why);
		reader->damaged = 1;
		return reader->steps > 0 && reader->manager.msg_code != JERR_OUT_OF_MEMORY ? 0 : -1;
	}
	jpeg_create_decompress(file);
	jpeg_mem_src(file, buf, len);
	jpeg_save_markers(file, JPEG_APP0 + 2, 0xFFFF);
	reader->in_header = 1;
	jpeg_read_header(file, TRUE);
	reader->in_header = 0;
	switch (file->jpeg_color_space) {
	case JCS_GRAYSCALE:
	case JCS_RGB:
	case JCS_YCbCr:
	case JCS_CMYK:
	case JCS_YCCK:
		break;
	default:
		vips_error("jpeg", "unsupported colours");
		return -1;
	}
	jpeg_read_icc_profile(file, &reader->profile, &reader->profile_length);
	file->scale_num = 1;
	file->scale_denom = shrink;
	file->raw_data_out = TRUE;
	file->out_color_space = file->jpeg_color_space;
	jpeg_start_decompress(file);
	if (make_planes(reader))
		return -1;
	for (; reader->steps < file->total_iMCU_rows; reader->steps++) {
		JSAMPROW rows[MAX_PLANES][MAX_SAMP_FACTOR * DCTSIZE];
		JSAMPARRAY planes[MAX_PLANES];
		for (int i = 0; i < file->num_components; i++) {
			Plane *plane = &reader->planes[i];
			planes[i] = rows[i];
			for (int row = 0; row < plane->step; row++)
				rows[i][row] = plane->samples + (size_t) (reader->steps * plane->step + row) * plane->stride;
		}
		jpeg_read_raw_data(file, planes, file->max_v_samp_factor * LEAST_SAMPLES_DOWN(file));
	}
	return 0;
}

// blank makes grey, as libjpeg does, of the rows below those that were decoded.
static void
blank(Reader *reader)
{
	for (int i = 0; i < reader->file.num_components; i++) {
		Plane *plane = &reader->planes[i];
		int from = reader->steps * plane->step;
		memset(plane->samples + (size_t) from * plane->stride, MIDDLE, (size_t) (plane->rows - from) * plane->stride);
	}
}

STEP(columns_repeated(VipsImage *in, int times), vips_zoom(in, &out, 1, times, NULL))
STEP(columns_shrunk(VipsImage *in, double factor, VipsKernel kernel), vips_resize(in, &out, 1, "vscale", factor, "kernel", kernel, NULL))
STEP(extended(VipsImage *in, int width, int height), vips_embed(in, &out, 0, 0, width, height, "extend", VIPS_EXTEND_COPY, NULL))

// columns_scaled repeats samples where there are to be more of them: libvips 8.14 would move them by half a pixel, and a WebP takes the
// mean of each four chroma samples anyway.
static VipsImage *
columns_scaled(VipsImage *in, double factor, VipsKernel kernel)
{
	int times = ceil(factor);
	return columns_shrunk(columns_repeated(in, times), factor / times, kernel);
}

// fit_plane scales one component to the size that the image is to have, and turns it by 90 degrees, because libvips 8.14 scales
// columns three times as fast as rows. Chroma mostly has fewer samples than luma: they are not made more first, to be made fewer
// again. A WebP has a quarter of them, so they need no sharp filter.
static VipsImage *
fit_plane(Reader *reader, int i, int width, int height)
{
	struct jpeg_decompress_struct *file = &reader->file;
	jpeg_component_info *component = &file->comp_info[i];
	Plane *plane = &reader->planes[i];
	// Pixels that a sample stands for.
	double wide = (double) file->max_h_samp_factor * LEAST_SAMPLES_ACROSS(file) / (component->h_samp_factor * SAMPLES_ACROSS(component));
	double high = (double) file->max_v_samp_factor * LEAST_SAMPLES_DOWN(file) / (component->v_samp_factor * SAMPLES_DOWN(component));
	VipsImage *image = vips_image_new_from_memory(plane->samples, (size_t) plane->stride * plane->rows, plane->stride, plane->rows, 1, VIPS_FORMAT_UCHAR);
	image = cropped(image, component->downsampled_width, component->downsampled_height);
	VipsKernel kernel = file->jpeg_color_space == JCS_YCbCr && i > 0 ? VIPS_KERNEL_LINEAR : VIPS_KERNEL_LANCZOS3;
	image = columns_scaled(image, high * height / file->output_height, kernel);
	image = columns_scaled(turned(in_memory(image), 90), wide * width / file->output_width, kernel);
	return extended(image, height, width); // by a sample, where half of one is outside
}

static unsigned char
to_byte(int fixed) // 16 bits behind the point
{
	int value = (fixed + (1 << 15)) >> 16;
	return value < 0 ? 0 : value > 255 ? 255 : value;
}

// in_colour makes RGB of YCbCr (JFIF 1.02, page 3), and CMYK of what Adobe stores: CMYK upside down, or YCCK, whose first three
// are then RGB (Adobe technical note 5116).
static void
in_colour(unsigned char *pixel, size_t count, J_COLOR_SPACE space)
{
	int bands = space == JCS_GRAYSCALE ? 1 : space == JCS_CMYK || space == JCS_YCCK ? 4 : 3;
	for (; count > 0; count--, pixel += bands) {
		if (space == JCS_YCbCr || space == JCS_YCCK) {
			int luma = pixel[0] << 16, blue = pixel[1] - MIDDLE, red = pixel[2] - MIDDLE;
			pixel[0] = to_byte(luma + 91881 * red);
			pixel[1] = to_byte(luma - 22554 * blue - 46802 * red);
			pixel[2] = to_byte(luma + 116130 * blue);
		}
		for (int ink = space == JCS_CMYK ? 0 : 3; ink < bands; ink++)
			pixel[ink] = 255 - pixel[ink];
	}
}

// join scales the planes, so that the image has at most size pixels on the long side, and puts them together, turned by 90
// degrees. The samples are the caller's to g_free, even if it returns NULL.
static VipsImage *
join(Reader *reader, int size, void **samples)
{
	struct jpeg_decompress_struct *file = &reader->file;
	double scale = VIPS_MIN(1, (double) size / VIPS_MAX(file->output_width, file->output_height));
	int width = VIPS_MAX(1, VIPS_ROUND_UINT(file->output_width * scale));
	int height = VIPS_MAX(1, VIPS_ROUND_UINT(file->output_height * scale));
	int bands = file->num_components, failed = 0;
	VipsImage *planes[MAX_PLANES] = {NULL}, *joined = NULL;
	size_t length = 0;
	for (int i = 0; i < bands; i++)
		failed = failed || !(planes[i] = fit_plane(reader, i, width, height));
	if (!failed && !vips_bandjoin(planes, &joined, bands, NULL))
		*samples = vips_image_write_to_memory(joined, &length);
	g_clear_object(&joined);
	for (int i = 0; i < bands; i++)
		g_clear_object(&planes[i]);
	if (!*samples)
		return NULL;
	in_colour(*samples, (size_t) width * height, file->jpeg_color_space);
	joined = vips_image_new_from_memory(*samples, length, height, width, bands, VIPS_FORMAT_UCHAR);
	if (joined && reader->profile)
		vips_image_set_blob_copy(joined, VIPS_META_ICC_NAME, reader->profile, reader->profile_length);
	return interpreted(joined, bands == 1 ? VIPS_INTERPRETATION_B_W : bands == 4 ? VIPS_INTERPRETATION_CMYK : VIPS_INTERPRETATION_sRGB);
}

// tramo_decode_jpeg decodes at 1/shrink of the size, and then to at most size pixels on the long side, in sRGB, and turns it.
// damaged says whether pixels are missing or wrong.
int
tramo_decode_jpeg(const void *buf, size_t len, int shrink, int size, int clockwise, int mirror, TramoPixels *out, int *damaged)
{
	Reader reader = {0};
	void *samples = NULL;
	reader.file.err = jpeg_std_error(&reader.manager);
	reader.manager.error_exit = give_up;
	reader.manager.emit_message = hear;
	int failed = read_planes(&reader, buf, len, shrink);
	if (!failed) {
		blank(&reader);
		failed = tramo_finish(join(&reader, size, &samples), (clockwise + 270) % 360, mirror, out);
	}
	*damaged = reader.damaged;
	jpeg_destroy_decompress(&reader.file);
	for (int i = 0; i < MAX_PLANES; i++)
		g_free(reader.planes[i].samples);
	free(reader.profile);
	g_free(samples);
	return failed;
}
