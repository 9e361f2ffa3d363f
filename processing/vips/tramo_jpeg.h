// libjpeg says by itself which of its warnings are losses of pixels: see jpeg.go.
#include <stddef.h>

enum { JUDGED_WHOLE, JUDGED_DAMAGED, JUDGED_BROKEN, JUDGED_MEMORY };

int tramo_jpeg_damage(const void *buf, size_t len);
