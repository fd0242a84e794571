// Tensor maps: the worker's driver makes them, since only it knows what its GPU reads in them. Addresses are the same
// on both sides, so a map stays good when the vGPU moves to another GPU of its kind.

#include <algorithm>
#include <cstring>

#include "api/payload.h"
#include "commands.h"
#include "interpose/entry/entry.h"

using namespace tide;

namespace {

constexpr cuuint32_t kRankMax = 5;
constexpr uintptr_t kMapAlignment = 64;  // the driver's demand; cuda.h asks for more
static_assert(sizeof(CUtensorMap) == sizeof(TensorMapAnswer::map));

// What all kinds of maps are told.
struct Tensor {
  CUtensorMapDataType type;
  cuuint32_t rank;
  void* address;
  const cuuint64_t* lengths;
  const cuuint64_t* strides;
  const cuuint32_t* steps;
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapL2promotion promotion;
  CUtensorMapFloatOOBfill fill;
};

// Copies what the program's arrays hold; their lengths follow from the rank.
CUresult question_of(const Tensor& t, TensorMapKind kind, TensorMapQuestion* q) {
  if (t.rank == 0 || t.rank > kRankMax || t.lengths == nullptr || t.steps == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (t.rank > 1 && t.strides == nullptr) return CUDA_ERROR_INVALID_VALUE;
  q->kind = kind;
  q->type = t.type, q->rank = t.rank, q->interleave = t.interleave, q->swizzle = t.swizzle;
  q->promotion = t.promotion, q->fill = t.fill;
  q->address = reinterpret_cast<uint64_t>(t.address);
  std::copy_n(t.lengths, t.rank, q->lengths);
  std::copy_n(t.strides, t.rank - 1, q->strides);
  std::copy_n(t.steps, t.rank, q->steps);
  return CUDA_SUCCESS;
}

CUresult encode(const TensorMapQuestion& question, CUtensorMap* map) {
  Entered e;
  TIDE_TRY(enter(&e));
  if (map == nullptr || reinterpret_cast<uintptr_t>(map) % kMapAlignment != 0) return CUDA_ERROR_INVALID_VALUE;
  const command::EncodeTensorMap command{sizeof question};
  Reply reply;
  TIDE_TRY(ask_command(*e.context, Call::tideEncodeTensorMap, command, command::kEncodeTensorMapDataOffset,
                       std::as_bytes(std::span(&question, 1)), &reply));
  TensorMapAnswer answer;
  TIDE_TRY(read_answer(reply, &answer));
  memcpy(map, answer.map, sizeof answer.map);
  return CUDA_SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                const cuuint64_t* lengths, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  TensorMapQuestion q;
  TIDE_TRY(question_of({type, rank, address, lengths, strides, steps, interleave, swizzle, promotion, fill},
                       TensorMapKind::kTiled, &q));
  if (box == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::copy_n(box, rank, q.box);
  return encode(q, map);
}

CUresult cuTensorMapEncodeIm2col(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                 const cuuint64_t* lengths, const cuuint64_t* strides, const int* lower,
                                 const int* upper, cuuint32_t channels, cuuint32_t pixels, const cuuint32_t* steps,
                                 CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                 CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  TensorMapQuestion q;
  TIDE_TRY(question_of({type, rank, address, lengths, strides, steps, interleave, swizzle, promotion, fill},
                       TensorMapKind::kIm2col, &q));
  if (rank < 3 || lower == nullptr || upper == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::copy_n(lower, rank - 2, q.lower);
  std::copy_n(upper, rank - 2, q.upper);
  q.channels = channels, q.pixels = pixels;
  return encode(q, map);
}

CUresult cuTensorMapEncodeIm2colWide(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                     const cuuint64_t* lengths, const cuuint64_t* strides, int lower_width,
                                     int upper_width, cuuint32_t channels, cuuint32_t pixels, const cuuint32_t* steps,
                                     CUtensorMapInterleave interleave, CUtensorMapIm2ColWideMode mode,
                                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                     CUtensorMapFloatOOBfill fill) {
  TensorMapQuestion q;
  TIDE_TRY(question_of({type, rank, address, lengths, strides, steps, interleave, swizzle, promotion, fill},
                       TensorMapKind::kIm2colWide, &q));
  q.lower[0] = lower_width, q.upper[0] = upper_width;
  q.channels = channels, q.pixels = pixels, q.mode = mode;
  return encode(q, map);
}

CUresult cuTensorMapReplaceAddress(CUtensorMap* map, void* address) {
  if (map == nullptr) return CUDA_ERROR_INVALID_VALUE;
  TensorMapQuestion q;
  q.kind = TensorMapKind::kReplaceAddress;
  q.address = reinterpret_cast<uint64_t>(address);
  memcpy(q.map, map, sizeof q.map);
  return encode(q, map);
}

}  // extern "C"
#pragma GCC visibility pop
