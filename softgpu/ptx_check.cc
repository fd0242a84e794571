// softgpu-ptx-check FILE...: which instructions of PTX the software GPU lacks. A file is PTX text, or anything that has
// fatbinaries inside: an executable, a library. Prints a line for each reason why a kernel does not lower, with how
// often and where first; exits with 1 when there are any.
//   --load   only load, as a program does, and print the seconds
//   --each   say it for each file, not for all together
//   --list   a line for each kernel that does not lower, its name and the reason with a tab between; no name when the
//            file does not load

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "softgpu/exec/program.h"
#include "softgpu/fatbin/fatbin.h"

namespace {

constexpr unsigned kNewest = 999;  // every target's PTX is taken

struct Reason {
  size_t count = 0;
  std::string where;
};

struct Tally {
  size_t files = 0, modules = 0, kernels = 0, lowered = 0, bytes = 0;
  double seconds = 0;  // of loading
  std::map<std::string, Reason> reasons;
};

// "kernel k, line 7: instruction 'x': reason" -> "instruction 'x': reason", so that equal reasons meet.
std::string reason_of(const std::string& error) {
  const size_t line = error.find("line ");
  const size_t end = line == std::string::npos ? line : error.find(": ", line);
  return end == std::string::npos ? error : error.substr(end + 2);
}

void add_reason(const std::string& file, const std::string& error, Tally* tally) {
  Reason& reason = tally->reasons[reason_of(error)];
  if (reason.count++ == 0) reason.where = file + ": " + error;
}

struct Options {
  bool load_only = false, each = false, list = false;
};

void check_text(const std::string& file, const std::string& text, const Options& options, Tally* tally) {
  std::string error;
  const uint64_t begin = tide::now_ns();
  const auto program = softgpu::Program::load(text, &error);
  tally->seconds += static_cast<double>(tide::now_ns() - begin) * 1e-9;
  ++tally->modules;
  tally->bytes += text.size();
  if (program == nullptr) {
    if (options.list) std::printf("\t%s\n", error.c_str());
    return add_reason(file, error, tally);
  }
  tally->kernels += program->kernels().size();
  if (options.load_only) {
    for (const std::string& line : program->warnings()) add_reason(file, line, tally);
    return;
  }
  for (uint32_t i = 0; i < program->kernels().size(); ++i) {
    if (program->kernel(i, &error) != nullptr) {
      ++tally->lowered;
    } else {
      if (options.list) std::printf("%s\t%s\n", program->kernels()[i].name.c_str(), error.c_str());
      add_reason(file, error, tally);
    }
  }
}

// Every fatbinary begins with this word at a multiple of 8.
constexpr uint32_t kFatbinMagic = 0xBA55ED50;

bool check_file(const std::string& file, const Options& options, Tally* tally) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return false;
  const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  ++tally->files;
  const softgpu::ImageText whole = softgpu::read_image(bytes.c_str(), kNewest);
  if (whole.status == softgpu::ImageStatus::kOk) {
    for (const std::string& text : whole.ptx) check_text(file, text, options, tally);
    return true;
  }
  for (size_t at = 0; at + 64 < bytes.size(); at += 8) {
    uint32_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    if (word != kFatbinMagic) continue;
    const softgpu::ImageText image = softgpu::read_image(bytes.data() + at, kNewest);
    if (image.status != softgpu::ImageStatus::kOk) continue;
    for (const std::string& text : image.ptx) check_text(file, text, options, tally);
  }
  return true;
}

void print(const std::string& name, const Tally& tally, bool load_only) {
  std::printf("%s: %zu modules, %zu bytes, loaded in %.2f s; ", name.c_str(), tally.modules, tally.bytes,
              tally.seconds);
  if (load_only) {
    std::printf("%zu kernels\n", tally.kernels);
  } else {
    std::printf("%zu of %zu kernels lower\n", tally.lowered, tally.kernels);
  }
  for (const auto& [reason, what] : tally.reasons) {
    std::printf("  %6zu  %s  [%s]\n", what.count, reason.c_str(), what.where.c_str());
  }
}

constexpr char kUsage[] =
    "usage: softgpu-ptx-check [--load] [--each] [--list] FILE...\n"
    "Says of PTX files, programs and libraries which of their kernels the software GPU runs, and why not the others.\n"
    "  --load   only parses\n"
    "  --each   a line for each file\n"
    "  --list   a line for each kernel\n";

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--load") {
      options.load_only = true;
    } else if (word == "--each") {
      options.each = true;
    } else if (word == "--list") {
      options.list = true;
    } else if (word == "--help") {
      std::fputs(kUsage, stdout);
      return 0;
    } else if (word.starts_with("--")) {
      std::fprintf(stderr, "softgpu-ptx-check: unknown option %s\n%s", argv[i], kUsage);
      return 2;
    } else {
      files.emplace_back(word);
    }
  }
  if (files.empty()) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  Tally all;
  bool missing = false;
  for (const std::string& file : files) {
    Tally own;
    Tally* tally = options.each ? &own : &all;
    if (!check_file(file, options, tally)) {
      std::fprintf(stderr, "softgpu-ptx-check: cannot read %s\n", file.c_str());
      return 2;
    }
    missing = missing || !tally->reasons.empty();
    if (options.each) print(file, own, options.load_only);
  }
  if (!options.each && !options.list) print(std::to_string(all.files) + " files", all, options.load_only);
  return missing ? 1 : 0;
}
