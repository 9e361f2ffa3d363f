// A JPEG, by libjpeg itself: see jpeg.go.
#include "tramo_decode.h"

int tramo_decode_jpeg(const void *buf, size_t len, int shrink, int size, int clockwise, int mirror, TramoPixels *out, int *damaged);
