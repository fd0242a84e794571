#include "server/image_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace tide {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPadding = 64;

class ImageStoreTest : public testing::Test {
 protected:
  ImageStoreTest() {
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    directory_ += "/images";
  }
  ~ImageStoreTest() override { fs::remove_all(fs::path(directory_).parent_path()); }
  static std::vector<std::byte> image(uint8_t seed, uint64_t bytes = 100'000) {
    std::vector<std::byte> made(bytes + kPadding);
    for (uint64_t i = 0; i < bytes; ++i) made[i] = std::byte(i * 7 + seed);
    return made;
  }
  static Sha256 name(const std::vector<std::byte>& image) { return sha256({image.data(), image.size() - kPadding}); }
  static std::string text_of(const Sha256& sum) { return hex(sum.data(), sum.size()); }
  size_t files() const { return size_t(std::distance(fs::directory_iterator(directory_), fs::directory_iterator())); }

  std::string directory_ = "/tmp/image-store-XXXXXX";
};

TEST_F(ImageStoreTest, names_are_sha256) {
  const std::string text = "abc";
  EXPECT_EQ(text_of(sha256(std::as_bytes(std::span(text)))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(ImageStoreTest, gives_back_what_another_process_kept) {
  const auto kept = image(1);
  ImageStore(directory_, 1 << 20).keep(kept, kept.size() - kPadding);
  std::vector<std::byte> found;
  ASSERT_TRUE(ImageStore(directory_, 1 << 20).find(name(kept), kept.size() - kPadding, kPadding, &found));
  EXPECT_EQ(found, kept);
  EXPECT_FALSE(ImageStore(directory_, 1 << 20).find(name(image(2)), 100'000, kPadding, &found));
  EXPECT_EQ(files(), 1u);
}

TEST_F(ImageStoreTest, what_is_not_what_its_name_says_is_removed) {
  const ImageStore store(directory_, 1 << 20);
  const auto kept = image(1);
  store.keep(kept, 100'000);
  const std::string path = directory_ + "/" + text_of(name(kept));
  const int fd = open(path.c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, "x", 1, 5000), 1);
  close(fd);
  std::vector<std::byte> found;
  EXPECT_FALSE(store.find(name(kept), 100'000, kPadding, &found));
  EXPECT_EQ(files(), 0u);
  store.keep(kept, 100'000);
  EXPECT_FALSE(store.find(name(kept), 99'999, kPadding, &found)) << "of another length";
}

TEST_F(ImageStoreTest, a_link_is_not_followed) {
  const ImageStore store(directory_, 1 << 20);
  const auto kept = image(1);
  store.keep(kept, 100'000);
  const fs::path path = directory_ + "/" + text_of(name(kept)), elsewhere = directory_ + "/../elsewhere";
  fs::rename(path, elsewhere);
  fs::create_symlink(elsewhere, path);
  std::vector<std::byte> found;
  EXPECT_FALSE(store.find(name(kept), 100'000, kPadding, &found));
}

TEST_F(ImageStoreTest, the_longest_unused_go_first) {
  const ImageStore store(directory_, 350'000);
  for (uint8_t i = 0; i < 3; ++i) {
    store.keep(image(i), 100'000);
    const timespec times[2] = {{1000 + i, 0}, {1000 + i, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, (directory_ + "/" + text_of(name(image(i)))).c_str(), times, 0), 0);
  }
  std::vector<std::byte> found;
  EXPECT_TRUE(store.find(name(image(0)), 100'000, kPadding, &found));  // now the last one in use
  store.keep(image(3), 100'000);
  EXPECT_FALSE(store.find(name(image(1)), 100'000, kPadding, &found));
  for (const uint8_t i : {0, 2, 3}) EXPECT_TRUE(store.find(name(image(i)), 100'000, kPadding, &found)) << int(i);
}

TEST_F(ImageStoreTest, too_large_too_small_or_nowhere_is_not_kept) {
  const ImageStore store(directory_, 90'000);
  store.keep(image(1), 100'000);
  store.keep(image(1, 1000), 1000);
  EXPECT_EQ(files(), 0u);
  const ImageStore nowhere("/proc/none/images", 1 << 20);
  nowhere.keep(image(1), 100'000);
  std::vector<std::byte> found;
  EXPECT_FALSE(nowhere.find(name(image(1)), 100'000, kPadding, &found));
  EXPECT_FALSE(ImageStore().find(name(image(1)), 100'000, kPadding, &found));
}

TEST_F(ImageStoreTest, many_at_once_find_all_or_nothing) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      const ImageStore store(directory_, 300'000);
      for (uint8_t i = 0; i < 40; ++i) {
        const auto wanted = image(i % 5);
        std::vector<std::byte> found;
        if (store.find(name(wanted), 100'000, kPadding, &found)) {
          EXPECT_EQ(found, wanted);
        } else {
          store.keep(wanted, 100'000);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tide
