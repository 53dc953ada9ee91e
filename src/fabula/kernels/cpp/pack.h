// Weights from a file's rows to the panels that the kernels read.
#pragma once
#include "codes.h"

namespace fabula {

// Bytes of one panel of a weight with `columns` inputs.
int64_t panel_bytes(int layout, int columns);
// The power of two by which stored scales must be multiplied, so that they fit in 16 bits; 1 for most formats.
float scale_multiplier(int format, int layout, const uint8_t* source, int rows, int columns, int64_t row_bytes);
// Rows of `format` to panels of `layout` at `out`, scales divided by the multiplier.
void pack(int format, int layout, const uint8_t* source, int rows, int columns, int64_t row_bytes, float multiplier, uint8_t* out, int threads);

}  // namespace fabula
