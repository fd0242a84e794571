#pragma once

// The vGPU's loaded images: staging of their bytes, loading, and what is in them. A kernel's number on the wire is
// library << 32 | its index here; the order is kept when the image is loaded again elsewhere. One thread.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/sha256.h"
#include "server/contexts.h"
#include "server/image_store.h"

namespace tide {

inline constexpr uint64_t kImageBytesMax = 1u << 30;   // the largest libraries of today are below it
inline constexpr uint64_t kStagedBytesMax = 2u << 30;  // all stages of a session at once
inline constexpr size_t kLibrariesMax = 65536;
inline constexpr uint64_t kImagePadding = 64;  // zero bytes behind an image: PTX text ends with a NUL

using ImageBytes = std::shared_ptr<std::vector<std::byte>>;

struct KernelEntry {
  std::string name;
  CUkernel handle = nullptr;
  uint32_t param_bytes = 0;
  uint32_t max_threads_per_block = 0;
  std::vector<std::pair<uint32_t, uint32_t>> params;  // offset, bytes
};

struct GlobalEntry {
  std::string name;
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool managed = false;
};

struct Library {
  CUlibrary handle = nullptr;
  ImageBytes image;
  uint64_t image_base = 0;  // of its globals, where the driver says; else 0
  uint64_t image_bytes = 0;
  std::vector<KernelEntry> kernels;
  std::vector<GlobalEntry> globals;  // that the client has looked up
};

struct Stage {
  ImageBytes bytes;
  uint64_t received = 0;
  bool kept = false;  // in the server's store
};

class Libraries {
 public:
  Libraries(const DriverLibrary& library, Contexts& contexts) : driver_(library), contexts_(contexts) {}
  // Module images will lie in [base, base + bytes).
  void start(uint64_t base, uint64_t bytes);

  CUresult stage(uint64_t number, uint64_t total, uint64_t offset, const std::byte* data, uint64_t bytes);
  // The whole stage at once, if the server has what has this name.
  CUresult stage_known(uint64_t number, uint64_t total, const Sha256& name);
  // A stage that began elsewhere.
  void put_stage(uint64_t number, Stage stage);
  // The stage's bytes, which it gives up; null when it is unknown or incomplete. *kept: the server has them.
  ImageBytes take_stage(uint64_t number, bool* kept = nullptr);
  // Other sessions of this server will not have to send this image. Does not wait.
  void keep(ImageBytes image) const;

  // Loads and looks inside. `like`: keep its kernels' order and its image's address (an earlier life of this library).
  // *message: why not.
  CUresult load(uint64_t number, ImageBytes image, const Library* like, std::string* message);
  CUresult unload(uint64_t number);
  Library* find(uint64_t number);
  const KernelEntry* kernel(uint64_t wire) const;
  // The kernel as a function of the current context.
  CUfunction function(uint64_t wire) const;
  // Looks it up in the current context and remembers it.
  CUresult global(uint64_t number, const std::string& name, GlobalEntry* entry);
  // Whether these bytes are inside a global that was looked up, or inside a module image.
  bool covers(uint64_t address, uint64_t bytes) const;
  // Whether they are inside a managed variable that was looked up: the CPU may touch them.
  bool managed(uint64_t address, uint64_t bytes) const;

  std::unordered_map<uint64_t, Library>& all() { return libraries_; }
  std::unordered_map<uint64_t, Stage>& stages() { return stages_; }

 private:
  CUresult place(Library* library, const Library* like);
  CUresult look_inside(Library* library) const;
  CUresult look_at(CUkernel handle, KernelEntry* kernel) const;
  static bool reorder(Library* library, const Library& like);

  const DriverLibrary& driver_;
  Contexts& contexts_;
  uint64_t next_image_ = 0;
  uint64_t image_end_ = 0;
  uint64_t staged_bytes_ = 0;
  std::unordered_map<uint64_t, Library> libraries_;
  std::unordered_map<uint64_t, Stage> stages_;
  // Writes what is to be kept, in a thread that is there while there is something.
  struct Keeper {
    std::mutex mu;
    std::deque<ImageBytes> images;  // guarded by mu
    bool runs = false;              // guarded by mu
    void run(const ImageStore& store);
  };
  const ImageStore store_ = ImageStore::from_environment();
  const std::shared_ptr<Keeper> keeper_ = std::make_shared<Keeper>();
};

}  // namespace tide
