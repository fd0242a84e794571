// Images of code in other wrappings than text: fat binaries, and files for the linker.
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "fixture.h"

namespace conformance {
namespace {

class Images : public Conformance {
 protected:
  // Kernels as PTX in a fat binary: a header of 16 bytes, and one entry of 64 bytes before its data.
  static std::string fat_binary() {
    const std::string text(kKernels, strlen(kKernels) + 1);
    const std::string padded = text + std::string((8 - text.size() % 8) % 8, '\0');
    const uint64_t size = padded.size();
    std::string image;
    const auto put = [&](uint64_t value, size_t bytes) { image.append(reinterpret_cast<const char*>(&value), bytes); };
    put(0xBA55ED50, 4);  // magic
    put(1, 2);           // version
    put(16, 2);          // bytes of the header
    put(64 + size, 8);   // bytes of everything behind it
    put(1, 2);           // PTX
    put(0x101, 2);
    put(64, 4);    // bytes of the entry's header
    put(size, 8);  // bytes of data
    put(0, 4);     // not compressed
    put(0, 4);
    put(0, 2);   // minor version of PTX
    put(8, 2);   // major
    put(75, 4);  // architecture
    put(0, 4);
    put(0, 4);
    put(0x11, 8);  // 64-bit addresses, Linux
    put(0, 8);
    put(0, 8);  // bytes when decompressed
    return image + padded;
  }
  void expect_it_works() {
    CUdeviceptr data = words({0});
    unsigned one = 1, what = 9;
    OK(launch(function("fill"), {&data, &one, &what}));
    EXPECT_EQ(read(data, 1)[0], 9u);
  }
  // A file that holds `text`; removed at the end.
  const char* file(const std::string& text) {
    path_ = "/tmp/conformance-XXXXXX";
    const int fd = mkstemp(path_.data());
    EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    close(fd);
    return path_.c_str();
  }
  ~Images() override {
    if (!path_.empty()) unlink(path_.c_str());
  }
  std::string path_;
};

TEST_F(Images, fat_binaries) {
  const std::string image = fat_binary();
  OK(CU(cuModuleLoadFatBinary)(&module, image.data()));
  expect_it_works();
  GIVES(CUDA_SUCCESS, CU(cuModuleUnload)(module));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleLoadFatBinary)(nullptr, image.data()));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuModuleLoadFatBinary)(&module, nullptr));
  EXPECT_NE(CU(cuModuleLoadFatBinary)(&module, "nothing of that kind"), CUDA_SUCCESS);
}

TEST_F(Images, fat_binaries_in_wrappers) {
  const std::string image = fat_binary();
  const struct {
    uint32_t magic = 0x466243B1, version = 1;
    const void* data;
    const void* names = nullptr;
  } wrapper = {.data = image.data()};
  OK(CU(cuModuleLoadFatBinary)(&module, &wrapper));
  expect_it_works();
}

TEST_F(Images, files_are_linked) {
  CUlinkState state = nullptr;
  OK(CU(cuLinkCreate_v2)(0, nullptr, nullptr, &state));
  OK(CU(cuLinkAddFile_v2)(state, CU_JIT_INPUT_PTX, file(kKernels), 0, nullptr, nullptr));
  GIVES(CUDA_ERROR_FILE_NOT_FOUND,
        CU(cuLinkAddFile_v2)(state, CU_JIT_INPUT_PTX, "/nowhere/nothing.ptx", 0, nullptr, nullptr));
  GIVES(CUDA_ERROR_INVALID_VALUE, CU(cuLinkAddFile_v2)(state, CU_JIT_INPUT_PTX, nullptr, 0, nullptr, nullptr));
  GIVES(CUDA_ERROR_INVALID_HANDLE, CU(cuLinkAddFile_v2)(nullptr, CU_JIT_INPUT_PTX, path_.c_str(), 0, nullptr, nullptr));
  void* image = nullptr;
  size_t size = 0;
  OK(CU(cuLinkComplete)(state, &image, &size));
  OK(CU(cuModuleLoadData)(&module, image));
  expect_it_works();
  GIVES(CUDA_SUCCESS, CU(cuLinkDestroy)(state));
}

}  // namespace
}  // namespace conformance
