// Included once an instruction set, inside that set's namespace: every kernel family, and their table.
#include "mathematics.h"
#include "rows.h"
#include "matmul.h"
#include "coded_cache.h"
#include "position_bias.h"
#include "attention.h"
#include "sample.h"

static constexpr Kernels table = {
    rms_norm, layer_norm, quantize, add_rows, activate_row, gate_row, softcap_row, scale_row, rope_row,
    matmul, finish, gate_and_quantize, keep_outliers, write_cache, attend_range, fold, divide, sample, uniforms,
};
