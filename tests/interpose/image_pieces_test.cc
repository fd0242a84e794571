// Fat binaries put together by hand, and what of them travels to which device.

#include "interpose/image_pieces.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "api/bundle.h"
#include "api/fatbin.h"
#include "softgpu/fatbin/fatbin.h"

namespace tide {
namespace {

constexpr uint64_t kPlain = kFatbin64Bit | kFatbinLinux;

std::string bytes_of(const void* from, size_t bytes) { return {static_cast<const char*>(from), bytes}; }

template <typename T>
std::string bytes_of(const T& value) {
  return bytes_of(&value, sizeof value);
}

struct Code {
  uint16_t kind = kFatbinElf;
  uint32_t capability = 80;
  uint64_t flags = kPlain;
  uint16_t version = kFatbinEntryVersion;
};

std::string code_text(const Code& code) {
  return (code.kind == kFatbinPtx ? ".version 8.0\n.target sm_" : "machine code ") + std::to_string(code.capability) +
         "." + std::to_string(code.flags);
}

std::string entry(const Code& code) {
  std::string payload = code_text(code);
  payload.resize((payload.size() + 8) / 8 * 8);
  FatbinEntry header{};
  header.kind = code.kind;
  header.version = code.version;
  header.header_bytes = sizeof header + 8;
  header.payload_bytes = payload.size();
  header.capability = code.capability;
  header.flags = code.flags;
  return bytes_of(header) + "a name.." + payload;
}

std::string fatbin_of(const std::string& entries) {
  return bytes_of(FatbinHeader{kFatbinMagic, kFatbinVersion, sizeof(FatbinHeader), entries.size()}) + entries;
}

std::string fatbin(const std::vector<Code>& codes) {
  std::string entries;
  for (const Code& code : codes) entries += entry(code);
  return fatbin_of(entries);
}

Code elf(uint32_t capability, uint64_t flags = 0) { return {kFatbinElf, capability, kPlain | flags}; }
Code ptx(uint32_t capability, uint64_t flags = 0) { return {kFatbinPtx, capability, kPlain | flags}; }

// What arrives, read in steps of `step` out of memory of exactly the image's size.
std::string sent(const std::string& image, unsigned capability, size_t step = 1000) {
  const std::unique_ptr<std::byte[]> exact(new std::byte[image.size()]);
  memcpy(exact.get(), image.data(), image.size());
  ImagePieces chosen = pieces_for({exact.get(), image.size()}, capability);
  ImagePieces pieces = std::move(chosen);  // as a caller may
  std::string out(pieces.bytes(), '?');
  for (size_t at = 0; at < out.size(); at += step) {
    pieces.read(reinterpret_cast<std::byte*>(out.data() + at), std::min(step, out.size() - at));
  }
  return out;
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ >> 8;
  }

 private:
  uint64_t state_;
};

TEST(ImagePieces, machine_code_is_for_its_major_number_from_its_minor_on) {
  const std::string all = fatbin({elf(75), elf(80), elf(86), elf(89), elf(90), ptx(75)});
  EXPECT_EQ(sent(all, 86), fatbin({elf(80), elf(86), ptx(75)}));
  EXPECT_EQ(sent(all, 80), fatbin({elf(80), ptx(75)}));
  EXPECT_EQ(sent(all, 75), fatbin({elf(75), ptx(75)}));
  EXPECT_EQ(sent(all, 90), fatbin({elf(90), ptx(75)}));
  EXPECT_EQ(sent(all, 120), fatbin({ptx(75)}));
}

TEST(ImagePieces, ptx_is_for_its_capability_and_above) {
  const std::string all = fatbin({ptx(52), ptx(80), ptx(90), ptx(120)});
  EXPECT_EQ(sent(all, 89), fatbin({ptx(52), ptx(80)}));
  EXPECT_EQ(sent(all, 120), all);
}

TEST(ImagePieces, packed_code_is_chosen_like_any) {
  const std::string all = fatbin({elf(80, kFatbinZstd), elf(90, kFatbinZstd), elf(90, kFatbinLz4 | kFatbinDebug)});
  EXPECT_EQ(sent(all, 80), fatbin({elf(80, kFatbinZstd)}));
}

TEST(ImagePieces, variants_for_one_capability_go_to_exactly_that) {
  const std::string all = fatbin({elf(90), elf(90, kFatbinExactly), ptx(90, kFatbinExactly), ptx(80)});
  EXPECT_EQ(sent(all, 90), all);
  EXPECT_EQ(sent(all, 100), fatbin({ptx(80)}));
  EXPECT_EQ(sent(fatbin({elf(100), elf(100, kFatbinExactly)}), 103), fatbin({elf(100)}));
}

TEST(ImagePieces, families_and_capsules_are_for_no_earlier_device) {
  const uint64_t family = kFatbinFamily | kFatbinCapsule;
  const std::string all = fatbin({elf(80), elf(100, kFatbinCapsule), elf(100, family), elf(103, family), ptx(80)});
  EXPECT_EQ(sent(all, 80), fatbin({elf(80), ptx(80)}));
  EXPECT_EQ(sent(all, 100), fatbin({elf(100, kFatbinCapsule), elf(100, family), ptx(80)}));
  EXPECT_EQ(sent(all, 103), fatbin({elf(100, kFatbinCapsule), elf(100, family), elf(103, family), ptx(80)}));
  EXPECT_EQ(sent(all, 120), sent(all, 103)) << "nobody knows for which later ones they are";
}

// The software GPU executes PTX only, and takes newer PTX where the device would have machine code.
TEST(ImagePieces, newer_ptx_stays_where_there_is_no_other) {
  EXPECT_EQ(sent(fatbin({elf(80), elf(90), ptx(120)}), 80), fatbin({elf(80), ptx(120)}));
  EXPECT_EQ(sent(fatbin({elf(80), elf(90), ptx(75), ptx(120)}), 80), fatbin({elf(80), ptx(75)}));
}

TEST(ImagePieces, what_is_not_understood_travels) {
  const Code others[] = {{.kind = 8, .capability = 120},
                         {.kind = 0, .capability = 120},
                         {.capability = 120, .version = 0x201},
                         {.capability = 120, .flags = kPlain | uint64_t{1} << 40}};
  for (const Code& other : others) {
    EXPECT_EQ(sent(fatbin({elf(90), other, elf(80)}), 80), fatbin({other, elf(80)}));
    const std::string useless = fatbin({elf(90), other});
    EXPECT_EQ(sent(useless, 80), useless) << "it may be useless, too";
  }
}

TEST(ImagePieces, an_image_without_anything_for_the_device_travels_whole) {
  for (const std::string& image : {fatbin({elf(75), elf(90), ptx(120)}), fatbin({ptx(90)}), fatbin({})}) {
    EXPECT_EQ(sent(image, 80), image);
  }
  const std::string all = fatbin({elf(75), elf(80)});
  EXPECT_EQ(sent(all, 0), all) << "the device's capability is not known";
}

TEST(ImagePieces, an_odd_layout_travels_whole) {
  const std::string good = fatbin({elf(75), elf(80), elf(90)});
  ASSERT_LT(sent(good, 80).size(), good.size());
  const auto with = [&](size_t at, uint64_t value, size_t bytes) {
    std::string image = good;
    memcpy(image.data() + at, &value, bytes);
    return image;
  };
  const size_t first = sizeof(FatbinHeader);
  const std::string odd[] = {
      with(0, 0xba55ed51, 4),                                             // magic
      with(4, 2, 2),                                                      // version
      with(6, 24, 2),                                                     // bytes of the header
      with(8, good.size() - 17, 8),                                       // of the entries
      with(8, ~uint64_t{0}, 8),                                           //
      with(first + 4, 63, 4),                                             // of an entry's header
      with(first + 4, 0xfffffff8, 4),                                     //
      with(first + 8, good.size(), 8),                                    // of its payload
      with(first + 8, ~uint64_t{7}, 8),                                   //
      with(first + 4, 73, 4),                                             // not a multiple of 8
      fatbin_of(entry(elf(75)) + entry(elf(80)) + std::string(8, '\0')),  // something behind the last entry
      good.substr(0, good.size() - 8),
      good.substr(0, 15),
      good + "more",
      "",
      ".version 8.0\n",
  };
  for (const std::string& image : odd) EXPECT_EQ(sent(image, 80), image);
}

TEST(ImagePieces, can_be_read_in_any_steps) {
  const std::string image = fatbin({elf(80), elf(90), elf(86), ptx(75), elf(75), ptx(80)});
  const std::string wanted = fatbin({elf(80), elf(86), ptx(75), ptx(80)});
  for (size_t step = 1; step <= wanted.size(); ++step) EXPECT_EQ(sent(image, 86, step), wanted) << step;
}

TEST(ImagePieces, lie_in_the_programs_memory) {
  const std::string image = fatbin({elf(75), elf(80), elf(86), elf(90), ptx(75)});
  const ImagePieces pieces = pieces_for(std::as_bytes(std::span(image)), 86);
  ASSERT_EQ(pieces.pieces().size(), 3u) << "the header, two neighbours as one, the PTX";
  EXPECT_EQ(pieces.pieces()[0].size(), sizeof(FatbinHeader));
  const auto* begin = reinterpret_cast<const std::byte*>(image.data());
  EXPECT_EQ(pieces.pieces()[1].data(), begin + sizeof(FatbinHeader) + entry(elf(75)).size());
}

struct Part {
  std::string name, image;
};

std::string bundle(BundleKind kind, const std::vector<Part>& parts) {
  std::string body;
  for (const Part& part : parts) {
    BundleEntry entry{1, uint32_t(part.name.size()), part.image.size()};
    body += bytes_of(entry) + part.name + std::string((8 - part.name.size() % 8) % 8, '\0');
    body += part.image + std::string(8 - part.image.size() % 8, '\0');
  }
  BundleHeader header;
  header.kind = uint32_t(kind);
  header.count = uint32_t(parts.size());
  header.bytes = sizeof header + body.size();
  return bytes_of(header) + body;
}

TEST(ImagePieces, of_a_linked_program_each_part_is_chosen_from) {
  const std::string linked = fatbin({elf(80), elf(90)}), one = fatbin({elf(80), elf(90), ptx(75)}),
                    foreign = fatbin({elf(120)});
  const auto made = [](const std::string& a, const std::string& b, const std::string& c) {
    return bundle(BundleKind::kFatbins, {{"", a}, {"one.cu", b}, {"", c}, {"", ""}});
  };
  const std::string all = made(linked, one, foreign);
  EXPECT_EQ(sent(all, 80), made(fatbin({elf(80)}), fatbin({elf(80), ptx(75)}), foreign));
  EXPECT_EQ(sent(all, 120), made(linked, fatbin({ptx(75)}), foreign));
}

TEST(ImagePieces, other_bundles_and_damaged_ones_travel_whole) {
  const std::string part = fatbin({elf(80), elf(90)});
  const std::string link = bundle(BundleKind::kLink, {{"a", part}});
  EXPECT_EQ(sent(link, 80), link);
  const std::string good = bundle(BundleKind::kFatbins, {{"", part}, {"a", part}});
  for (const size_t at : {0, 8, 12, 13, 16, 28, 29, 32, 39}) {
    std::string bad = good;
    bad[at] ^= '\x7c';
    EXPECT_EQ(sent(bad, 80), bad) << at;
  }
  EXPECT_EQ(sent(good + "12345678", 80), good + "12345678");
  EXPECT_EQ(sent(good.substr(0, good.size() - 8), 80), good.substr(0, good.size() - 8));
}

constexpr unsigned kDevices[] = {75, 80, 86, 87, 89, 90, 100, 103, 120, 121, 130};

// Whatever a driver finds in the whole image, it finds in what has travelled. The driver is the software GPU.
TEST(ImagePieces, a_driver_loads_from_them_what_it_loads_from_the_whole) {
  Dice dice(1);
  const uint64_t variants[] = {0, 0, 0, 0, kFatbinExactly, kFatbinFamily, kFatbinCapsule, kFatbinDebug};
  size_t smaller = 0;
  for (int round = 0; round < 1000; ++round) {
    std::vector<Code> codes(dice() % 7);
    for (Code& code : codes) code = {uint16_t(1 + dice() % 2), kDevices[dice() % 10], kPlain | variants[dice() % 8]};
    const std::string image = fatbin(codes);
    for (const unsigned device : kDevices) {
      const std::string chosen = sent(image, device);
      smaller += chosen.size() < image.size();
      const softgpu::ImageText whole = softgpu::read_image(std::string_view(image), device);
      const softgpu::ImageText part = softgpu::read_image(std::string_view(chosen), device);
      ASSERT_EQ(whole.status, part.status) << "round " << round << " device " << device;
      ASSERT_EQ(whole.ptx, part.ptx) << "round " << round << " device " << device;
    }
  }
  EXPECT_GT(smaller, 3'000u);
}

// AddressSanitizer sees a byte read too many: sent() copies into memory of exactly the size.
TEST(ImagePieces, damaged_images_are_not_read_past_their_end) {
  const std::string wholes[] = {
      fatbin({elf(75), elf(80), ptx(75), elf(90), ptx(120)}),
      bundle(BundleKind::kFatbins, {{"", fatbin({elf(80), elf(90)})}, {"n", fatbin({ptx(75), elf(90)})}})};
  Dice dice(2);
  for (const std::string& whole : wholes) {
    for (int round = 0; round < 5'000; ++round) {
      std::string bad = whole;
      for (uint64_t n = 1 + dice() % 4; n != 0; --n) {
        const char interesting[] = {'\0', '\x7f', '\xff', '\x08', '\x40', char(dice())};
        bad[dice() % bad.size()] = interesting[dice() % sizeof interesting];
      }
      if (dice() % 4 == 0) bad.resize(dice() % (bad.size() + 1));
      const std::string out = sent(bad, kDevices[dice() % std::size(kDevices)]);
      ASSERT_LE(out.size(), bad.size() + 8);
    }
  }
}

TEST(ImagePieces, noise_behind_the_magic_travels_whole_or_shorter) {
  Dice dice(3);
  for (int round = 0; round < 5'000; ++round) {
    std::string noise(dice() % 300, '\0');
    for (char& c : noise) c = char(dice() % 3 == 0 ? dice() : 0);
    const std::string image = dice() % 2 != 0 ? fatbin_of(noise) : bytes_of(kBundleMagic) + noise;
    ASSERT_LE(sent(image, 80).size(), image.size());
  }
}

}  // namespace
}  // namespace tide
