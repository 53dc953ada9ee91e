// The C interface that kernels/library.py loads. Nothing here throws across it.
#include <algorithm>
#include <chrono>
#include <new>

#include "pack.h"
#include "program.h"

#if defined(_WIN32)
#define FABULA_API extern "C" __declspec(dllexport)
#else
#define FABULA_API extern "C" __attribute__((visibility("default")))
#endif

using namespace fabula;

namespace {

enum Isa : int32_t { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

const Kernels* kernels_for(int isa) {
#if defined(__x86_64__)
  if (isa == kAvx512) return &avx512_kernels;
  if (isa == kAvx2) return &avx2_kernels;
#endif
  return isa == kPortable ? &portable_kernels : nullptr;
}

}  // namespace

FABULA_API int32_t fabula_version() { return 5; }

// A bit for each instruction set that this machine has.
FABULA_API int32_t fabula_isas() {
  int32_t found = 1 << kPortable;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) found |= 1 << kAvx2;
  if (found & (1 << kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
    found |= 1 << kAvx512;
#endif
  return found;
}

FABULA_API void fabula_sizes(int32_t* out) {
  out[0] = sizeof(Matrix), out[1] = sizeof(Value), out[2] = sizeof(Segment), out[3] = sizeof(Instruction), out[4] = sizeof(Step), out[5] = sizeof(SampleRow), out[6] = sizeof(Burst), out[7] = sizeof(PositionBias);
}

FABULA_API void* fabula_arena_new(int64_t bytes) {
  Arena* arena = new (std::nothrow) Arena;
  if (arena && arena->reserve(bytes)) return arena;
  delete arena;
  return nullptr;
}
FABULA_API void fabula_arena_free(void* arena) { delete (Arena*)arena; }
FABULA_API uint8_t* fabula_arena_data(void* arena) { return ((Arena*)arena)->data(); }

FABULA_API int32_t fabula_layout(int32_t format) { return shape_of(format).layout; }
FABULA_API int64_t fabula_panel_bytes(int32_t layout, int32_t columns) { return panel_bytes(layout, columns); }
FABULA_API float fabula_scale_multiplier(int32_t format, int32_t layout, const uint8_t* source, int32_t rows, int32_t columns, int64_t row_bytes) {
  return scale_multiplier(format, layout, source, rows, columns, row_bytes);
}
FABULA_API void fabula_pack(int32_t format, int32_t layout, const uint8_t* source, int32_t rows, int32_t columns, int64_t row_bytes, float multiplier,
                            uint8_t* out, int32_t threads) {
  pack(format, layout, source, rows, columns, row_bytes, multiplier, out, threads);
}
FABULA_API void fabula_dequantize(int32_t format, const uint8_t* source, int64_t count, float* out) { dequantize(format, source, count, out); }

FABULA_API void* fabula_pool_new(int32_t threads) { return new (std::nothrow) Pool(threads); }
FABULA_API void fabula_pool_free(void* pool) { delete (Pool*)pool; }

FABULA_API void* fabula_program_new(const Instruction* instructions, int32_t instruction_count, const Value* values, int32_t value_count,
                                    const RopeTable* ropes, int32_t rope_count, int64_t bytes_per_token) {
  return new (std::nothrow) Program(instructions, instruction_count, values, value_count, ropes, rope_count, bytes_per_token);
}
FABULA_API void fabula_program_free(void* program) { delete (Program*)program; }

// A Status.
FABULA_API int32_t fabula_run(void* program, void* pool, int32_t isa, const Step* step) {
  const Kernels* kernels = (fabula_isas() >> isa) & 1 ? kernels_for(isa) : nullptr;
  if (!kernels) return kNoSuchIsa;
  try {
    return ((Program*)program)->run(*(Pool*)pool, *kernels, *step);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

namespace {

void sample(Pool& pool, const Kernels& kernels, const float* logits, int count, const SampleRow* rows, int row_count, int32_t* tokens) {
  if (row_count == 1) return kernels.sample(logits, count, rows, 0, 1, tokens);
  struct Job {
    const Kernels& kernels;
    const float* logits;
    int count;
    const SampleRow* rows;
    int row_count;
    int32_t* tokens;
    int threads;
  } job{kernels, logits, count, rows, row_count, tokens, pool.size()};
  std::unique_lock<std::mutex> lock = pool.lock();
  pool.run(
      [](void* data, int thread) {
        Job& j = *(Job*)data;
        int begin = int(int64_t(j.row_count) * thread / j.threads), end = int(int64_t(j.row_count) * (thread + 1) / j.threads);
        j.kernels.sample(j.logits, j.count, j.rows, begin, end, j.tokens);
      },
      &job);
}

// Each row a token further; whether one of them ends with its token.
bool append(Step& step, SampleRow* rows, const Burst& burst, const int32_t* tokens) {
  bool ends = false;
  for (int r = 0; r < step.rows; r++) {
    const int32_t token = tokens[r], *end = burst.ends + int64_t(r) * burst.end_count;
    ((int32_t*)step.tokens)[r] = token;
    ((int32_t*)step.first)[r]++;
    rows[r].position++;
    if (rows[r].tokens) ((int32_t*)rows[r].tokens)[rows[r].token_count++] = token;
    ends = ends || std::find(end, end + burst.end_count, token) != end + burst.end_count;
  }
  return ends;
}

}  // namespace

// The token of each row of logits [rows, count], or -1 where its scores are not all finite. A Status.
FABULA_API int32_t fabula_sample(void* pool, int32_t isa, const float* logits, int32_t count, const SampleRow* rows, int32_t row_count,
                                 int32_t* tokens) {
  const Kernels* kernels = (fabula_isas() >> isa) & 1 ? kernels_for(isa) : nullptr;
  if (!kernels) return kNoSuchIsa;
  try {
    sample(*(Pool*)pool, *kernels, logits, count, rows, row_count, tokens);
    return kDone;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

// Steps of rows of one position each, until one ends, a row's scores are not all finite, or the steps or seconds are
// used up. What a step changes are its tokens and first positions, and of the sampled rows tokens and position: all of
// them are the caller's to write to, with room for all steps. A Status.
FABULA_API int32_t fabula_burst(void* program, void* pool, int32_t isa, Step* step, SampleRow* rows, int32_t count, Burst* burst) {
  burst->done = 0;
  auto begin = std::chrono::steady_clock::now();
  while (burst->done < burst->steps) {
    if (int32_t status = fabula_run(program, pool, isa, step)) return status;
    int32_t* tokens = burst->tokens + int64_t(burst->done) * step->rows;
    if (int32_t status = fabula_sample(pool, isa, step->outputs[0], count, rows, step->rows, tokens)) return status;
    if (std::find(tokens, tokens + step->rows, -1) != tokens + step->rows) return kDone;
    burst->done++;
    bool ends = append(*step, rows, *burst, tokens);
    if (ends || std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() > burst->seconds) return kDone;
  }
  return kDone;
}

// Numbers in (0, 1) of tokens at positions [rows] under the rows' keys [rows], to out [rows, count]; a row's tokens lie
// `step` after those of the row before, where step 0 means that all rows have the same. A Status.
FABULA_API int32_t fabula_uniforms(int32_t isa, const uint32_t* low, const uint32_t* high, const uint32_t* positions, int32_t rows,
                                   const int32_t* tokens, int64_t step, int32_t count, float* out) {
  const Kernels* kernels = (fabula_isas() >> isa) & 1 ? kernels_for(isa) : nullptr;
  if (!kernels) return kNoSuchIsa;
  for (int32_t r = 0; r < rows; r++) kernels->uniforms(low[r], high[r], positions[r], tokens + r * step, count, out + int64_t(r) * count);
  return kDone;
}
