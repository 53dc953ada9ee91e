// Weights from a file's rows to the panels that the kernels read.
#pragma once
#include "codes.h"

namespace fabula {

// Bytes of one panel of a weight with `columns` inputs.
int64_t panel_bytes(int layout, int columns);
// Rows of `format` to panels of `layout` at `out`; returns the multiplier of its scales.
float pack(int format, int layout, const uint8_t* source, int rows, int columns, int64_t row_bytes, uint8_t* out, int threads);

}  // namespace fabula
