// Steps of a pipeline of libvips: each takes over the reference to its input, and returns NULL if that was NULL or it failed
// itself.
#include <vips/vips.h>

#define STEP(name, call) \
	static inline VipsImage *name \
	{ \
		VipsImage *out = NULL; \
		if (!in) \
			return NULL; \
		if (call) \
			g_clear_object(&out); \
		g_object_unref(in); \
		return out; \
	}

STEP(cropped(VipsImage *in, int width, int height), vips_crop(in, &out, 0, 0, width, height, NULL))
STEP(in_memory(VipsImage *in), !(out = vips_image_copy_memory(in)))
STEP(turned(VipsImage *in, int clockwise), vips_rot(in, &out, clockwise / 90, NULL)) // VIPS_ANGLE_D0, D90, D180, D270
STEP(interpreted(VipsImage *in, VipsInterpretation as), vips_copy(in, &out, "interpretation", as, NULL))
