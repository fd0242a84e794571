#pragma once

// Several images that are loaded as one, in one piece of memory: the fat binaries of a program linked with -rdc=true,
// or what a program handed to cuLinkAddData. It travels like any image, and is taken apart where the driver is.
//
// Bytes: BundleHeader, then count times { BundleEntry, name bytes (no NUL), zeroes to 8, image bytes, at least one
// zero, zeroes to 8 }.

#include <cstdint>

namespace tide {

inline constexpr uint64_t kBundleMagic = 0x316c646e62646974;  // "tidbndl1"
inline constexpr uint32_t kBundleEntriesMax = 65536;

enum class BundleKind : uint32_t {
  kFatbins = 1,  // the first entry is the linked machine code, which may be empty; then one for each unit
  kLink = 2,     // inputs of cuLink*, in their order
};

struct BundleHeader {
  uint64_t magic = kBundleMagic;
  uint32_t kind = 0;  // BundleKind
  uint32_t count = 0;
  uint64_t bytes = 0;  // of everything
};

struct BundleEntry {
  uint32_t type = 0;  // kLink: CUjitInputType
  uint32_t name_bytes = 0;
  uint64_t bytes = 0;
};

}  // namespace tide
