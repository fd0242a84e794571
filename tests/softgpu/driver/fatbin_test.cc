// Images as compilers write them, put together by hand.

#include "softgpu/fatbin/fatbin.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <lz4.h>
#include <zstd.h>

#include <cstring>

namespace softgpu {
namespace {

constexpr uint16_t kPtx = 1, kElf = 2;
constexpr uint64_t kLz4 = 0x2000, kZstd = 0x8000, kOneArchitecture = 0x100000;

template <typename T>
void put(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string entry(uint16_t kind, uint32_t capability, const std::string& text, uint64_t flags = 0) {
  std::string payload = text;
  if (flags & kZstd) {
    payload.resize(ZSTD_compressBound(text.size()));
    payload.resize(ZSTD_compress(payload.data(), payload.size(), text.data(), text.size(), 3));
  } else if (flags & kLz4) {
    payload.resize(static_cast<size_t>(LZ4_compressBound(static_cast<int>(text.size()))));
    payload.resize(static_cast<size_t>(LZ4_compress_default(text.data(), payload.data(), static_cast<int>(text.size()),
                                                            static_cast<int>(payload.size()))));
  }
  const auto compressed = static_cast<uint32_t>(payload.size());
  payload.resize((payload.size() + 8) / 8 * 8);  // with a NUL behind plain text
  std::string out;
  put(&out, kind);
  put<uint16_t>(&out, 0x101);
  put<uint32_t>(&out, 64);
  put<uint64_t>(&out, payload.size());
  put<uint32_t>(&out, flags & (kLz4 | kZstd) ? compressed : 0);
  put<uint32_t>(&out, 0);
  put<uint32_t>(&out, 0x90000);
  put<uint32_t>(&out, capability);
  put<uint64_t>(&out, 64);
  put<uint64_t>(&out, flags);
  put<uint64_t>(&out, 0);
  put<uint64_t>(&out, text.size());
  return out + payload;
}

std::string fatbin(const std::string& entries) {
  std::string out;
  put<uint32_t>(&out, 0xBA55ED50);
  put<uint16_t>(&out, 1);
  put<uint16_t>(&out, 16);
  put<uint64_t>(&out, entries.size());
  return out + entries;
}

struct Wrapper {
  uint32_t magic = 0x466243B1, version = 1;
  const void* data = nullptr;
  const void* more = nullptr;
};

const std::string k75 = ".version 8.0\n.target sm_75\n";
const std::string k80 = ".version 8.0\n.target sm_80\n";
const std::string k90 = ".version 8.0\n.target sm_90\n";

TEST(Fatbin, the_highest_ptx_that_the_device_runs_is_chosen) {
  const std::string image = fatbin(entry(kPtx, 75, k75) + entry(kPtx, 80, k80) + entry(kPtx, 90, k90));
  EXPECT_EQ(read_image(image.data(), 80).ptx.at(0), k80);
  EXPECT_EQ(read_image(image.data(), 86).ptx.at(0), k80);
  EXPECT_EQ(read_image(image.data(), 130).ptx.at(0), k90);
}

TEST(Fatbin, ptx_is_unpacked_whatever_packed_it) {
  for (const uint64_t flags : {uint64_t{0}, kLz4, kZstd}) {
    const std::string image = fatbin(entry(kElf, 80, "machine code") + entry(kPtx, 80, k80, flags));
    const ImageText text = read_image(image.data(), 80);
    ASSERT_EQ(text.status, ImageStatus::kOk) << text.error;
    EXPECT_EQ(text.ptx.at(0), k80);
  }
}

TEST(Fatbin, ptx_for_exactly_one_architecture_runs_only_there) {
  const std::string image = fatbin(entry(kPtx, 80, k80) + entry(kPtx, 90, k90, kOneArchitecture));
  EXPECT_EQ(read_image(image.data(), 100).ptx.at(0), k80);
  EXPECT_EQ(read_image(image.data(), 90).ptx.at(0), k90);
}

TEST(Fatbin, machine_code_alone_says_how_to_build) {
  const std::string image = fatbin(entry(kElf, 80, "machine code") + entry(kElf, 90, "machine code"));
  const ImageText text = read_image(image.data(), 80);
  EXPECT_EQ(text.status, ImageStatus::kNoPtx);
  EXPECT_NE(text.error.find("only machine code for sm_80, sm_90, no PTX"), std::string::npos) << text.error;
  Elf64_Ehdr elf{};
  std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
  elf.e_ident[EI_ABIVERSION] = 8;
  elf.e_flags = 0x6005a04;
  EXPECT_NE(read_image(&elf, 80).error.find("sm_90"), std::string::npos);
  elf.e_ident[EI_ABIVERSION] = 7;
  elf.e_flags = 0x5a0556;
  EXPECT_NE(read_image(&elf, 80).error.find("sm_86"), std::string::npos);
}

TEST(Fatbin, ptx_that_is_too_new_says_so) {
  const std::string image = fatbin(entry(kPtx, 90, k90));
  const ImageText text = read_image(image.data(), 80);
  EXPECT_EQ(text.status, ImageStatus::kTooNew);
  EXPECT_NE(text.error.find("sm_90"), std::string::npos);
}

TEST(Fatbin, wrappers_lead_to_their_fatbinary) {
  const std::string image = fatbin(entry(kPtx, 80, k80));
  Wrapper wrapper;
  wrapper.data = image.data();
  EXPECT_EQ(read_image(&wrapper, 80).ptx.at(0), k80);
  wrapper.version = 3;
  EXPECT_EQ(read_image(&wrapper, 80).status, ImageStatus::kInvalid);
}

TEST(Fatbin, linked_programs_bring_the_ptx_of_each_unit) {
  const std::string linked = fatbin(entry(kElf, 80, "linked machine code"));
  const std::string one = fatbin(entry(kPtx, 80, k80)), two = fatbin(entry(kPtx, 75, k75));
  const void* units[] = {one.data(), two.data(), nullptr};
  Wrapper wrapper;
  wrapper.version = 2;
  wrapper.data = linked.data();
  wrapper.more = units;
  const ImageText text = read_image(&wrapper, 80);
  ASSERT_EQ(text.status, ImageStatus::kOk) << text.error;
  EXPECT_EQ(text.ptx, (std::vector<std::string>{k80, k75}));
}

TEST(Fatbin, ptx_text_may_begin_with_comments) {
  const char* text = "//\n// made by a compiler\n/* and more */\n\n.version 8.0\n";
  EXPECT_EQ(read_image(text, 80).ptx.at(0), text);
}

TEST(Fatbin, damaged_images_are_refused) {
  EXPECT_EQ(read_image("", 80).status, ImageStatus::kInvalid);
  EXPECT_EQ(read_image("hello", 80).status, ImageStatus::kInvalid);
  EXPECT_EQ(read_image("/* never closed", 80).status, ImageStatus::kInvalid);
  std::string image = fatbin(entry(kPtx, 80, k80, kZstd));
  for (size_t at = 16 + 4; at < 16 + 16; ++at) {  // the entry's lengths
    std::string damaged = image;
    damaged[at] = '\x7f';
    EXPECT_NE(read_image(damaged.data(), 80).status, ImageStatus::kOk) << at;
  }
  std::string torn = image;
  torn[16 + 64 + 5] ^= '\x55';  // the packed text
  EXPECT_NE(read_image(torn.data(), 80).ptx, std::vector<std::string>{k80});
}

}  // namespace
}  // namespace softgpu
