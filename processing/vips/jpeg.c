#include "tramo_jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <jerror.h>

typedef struct {
	struct jpeg_error_mgr manager; // first: libjpeg knows only this
	jmp_buf gave_up;
	int in_header, damaged;
} Judge;

static void
give_up(j_common_ptr file)
{
	longjmp(((Judge *) file->err)->gave_up, 1);
}

// hear counts the warnings that say that pixels are lost. Others are about metadata, about parameters that a sequential JPEG
// ignores (JWRN_NOT_SEQUENTIAL), or about stray bytes between the segments of the header, which every decoder skips. Between
// scans such bytes are data that a damaged scan left over.
static void
hear(j_common_ptr file, int level)
{
	Judge *judge = (Judge *) file->err;
	if (level >= 0) // a trace
		return;
	switch (judge->manager.msg_code) {
	case JWRN_EXTRANEOUS_DATA:
		if (judge->in_header)
			break;
		// fall through
	case JWRN_ARITH_BAD_CODE:
	case JWRN_BOGUS_PROGRESSION:
	case JWRN_HIT_MARKER:
	case JWRN_HUFF_BAD_CODE:
	case JWRN_JPEG_EOF:
	case JWRN_MUST_RESYNC:
		judge->damaged = 1;
	}
}

// tramo_jpeg_damage decodes at an eighth of the size, row by row: all of the data, and of the pixels next to nothing.
int
tramo_jpeg_damage(const void *buf, size_t len)
{
	struct jpeg_decompress_struct file = {0};
	Judge judge = {0};
	file.err = jpeg_std_error(&judge.manager);
	judge.manager.error_exit = give_up;
	judge.manager.emit_message = hear;
	judge.in_header = 1;
	if (setjmp(judge.gave_up)) {
		int lacks_memory = judge.manager.msg_code == JERR_OUT_OF_MEMORY;
		jpeg_destroy_decompress(&file);
		return lacks_memory ? JUDGED_MEMORY : JUDGED_BROKEN;
	}
	jpeg_create_decompress(&file);
	jpeg_mem_src(&file, buf, len);
	jpeg_read_header(&file, TRUE);
	judge.in_header = 0;
	file.scale_num = 1;
	file.scale_denom = 8;
	file.out_color_space = file.jpeg_color_space;
	file.do_fancy_upsampling = FALSE;
	jpeg_start_decompress(&file);
	JSAMPARRAY row = (*file.mem->alloc_sarray)((j_common_ptr) &file, JPOOL_IMAGE, file.output_width * file.output_components, 1);
	while (file.output_scanline < file.output_height)
		jpeg_read_scanlines(&file, row, 1);
	jpeg_destroy_decompress(&file);
	return judge.damaged ? JUDGED_DAMAGED : JUDGED_WHOLE;
}
