// softgpu-ptx-check FILE...: which instructions of PTX the software GPU lacks. A file is PTX text, or anything that has
// fatbinaries inside: an executable, a library. Prints a line for each reason why a kernel does not lower, with how
// often and where first; exits with 1 when there are any.
//   --load   only load, as a program does, and print the seconds
//   --each   say it for each file, not for all together
//   --list   a line for each kernel that does not lower, its name and the reason with a tab between; no name when the
//            file does not load

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "api/fatbin.h"
#include "base/clock.h"
#include "softgpu/exec/program.h"
#include "softgpu/fatbin/fatbin.h"
#include "softgpu/fatbin/object.h"
#include "softgpu/lower/reach.h"
#include "softgpu/ptx/parser.h"

namespace {

constexpr unsigned kNewest = 999;  // every target's PTX is taken

struct Reason {
  size_t count = 0;
  std::string where;
};

struct Tally {
  size_t files = 0, completed = 0, modules = 0, kernels = 0, lowered = 0, bytes = 0;
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
  std::string kernel;  // only this one
};

// Functions that no unit defines, because the caller of a library links them in, defined as doing nothing: so their
// callers can be looked at. Empty when there are none.
std::string definitions_of_missing(const std::vector<softgpu::PtxUnit>& units) {
  std::set<std::string> defined;
  std::map<std::string, std::string> missing;
  const auto list = [](const std::vector<softgpu::ptx::Variable>& variables, const char* name) {
    std::string out = "(";
    for (size_t i = 0; i < variables.size(); ++i) {
      const softgpu::ptx::Variable& v = variables[i];
      out += (i == 0 ? "" : ", ") + (".param .align " + std::to_string(std::max(v.align, 1u))) + " .b8 " + name +
             std::to_string(i) + "[" + std::to_string(v.bytes) + "]";
    }
    return out + ")";
  };
  for (const softgpu::PtxUnit& unit : units) {
    std::string error;
    const auto module = softgpu::ptx::parse(
        unit.text, [](const auto&, const auto&) {}, &error);
    if (module == nullptr) return "";
    for (const auto& f : module->functions) {
      const std::string name(f->name);
      if (f->has_body) defined.insert(name);
      if (f->has_body || softgpu::is_builtin(name)) continue;
      missing[name] = ".visible .func " + (f->returns.empty() ? "" : list(f->returns, "r")) + " " + name +
                      list(f->params, "p") + " { ret; }\n";
    }
  }
  std::string out;
  for (const auto& [name, text] : missing) out += defined.contains(name) ? "" : text;
  return out.empty() ? out : ".version 8.0\n.target sm_75\n.address_size 64\n" + out;
}

bool wanted(const Options& options, const std::string& kernel) {
  return options.kernel.empty() || options.kernel == kernel;
}

// The units of one program; most have one.
void check_program(const std::string& file, const std::vector<std::string>& texts, const Options& options,
                   Tally* tally) {
  std::vector<softgpu::PtxUnit> units;
  for (const std::string& text : texts) {
    units.push_back({texts.size() > 1 ? "unit " + std::to_string(units.size() + 1) : "", text, true});
    tally->bytes += text.size();
  }
  tally->modules += units.size();
  const std::string rest = definitions_of_missing(units);
  if (!rest.empty()) {
    ++tally->completed;
    units.push_back({"what callers define", rest, true});
  }
  softgpu::LoadError why;
  const uint64_t begin = tide::now_ns();
  const auto program = softgpu::Program::load(std::move(units), 0, &why);
  tally->seconds += static_cast<double>(tide::now_ns() - begin) * 1e-9;
  if (program == nullptr) {
    if (options.list) std::printf("\t%s\n", why.text.c_str());
    return add_reason(file, why.text, tally);
  }
  tally->kernels += program->kernels().size();
  if (options.load_only) {
    for (const std::string& line : program->warnings()) add_reason(file, line, tally);
    return;
  }
  std::string error;
  for (uint32_t i = 0; i < program->kernels().size(); ++i) {
    if (!wanted(options, program->kernels()[i].name)) continue;
    if (program->kernel(i, &error) != nullptr) {
      ++tally->lowered;
    } else {
      if (options.list) std::printf("%s\t%s\n", program->kernels()[i].name.c_str(), error.c_str());
      add_reason(file, error, tally);
    }
  }
}

bool check_file(const std::string& file, const Options& options, Tally* tally) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return false;
  const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  ++tally->files;
  const softgpu::ImageText whole = softgpu::read_image(bytes.c_str(), kNewest);
  const std::vector<uint64_t> linked = softgpu::linked_units(bytes);
  if (whole.status == softgpu::ImageStatus::kOk && linked.empty()) {
    for (const std::string& text : whole.ptx) check_program(file, {text}, options, tally);
    return true;
  }
  std::vector<std::string> units;
  for (const uint64_t at : linked) {
    softgpu::ImageText image = softgpu::read_image(bytes.data() + at, kNewest);
    if (image.status != softgpu::ImageStatus::kOk || image.machine_code) continue;
    for (std::string& text : image.ptx) units.push_back(std::move(text));
  }
  if (!units.empty()) check_program(file, units, options, tally);
  for (size_t at = 0; at + 64 < bytes.size(); at += 8) {  // every fat binary begins at a multiple of 8
    uint32_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    if (word != tide::kFatbinMagic || std::binary_search(linked.begin(), linked.end(), at)) continue;
    const softgpu::ImageText image = softgpu::read_image(bytes.data() + at, kNewest);
    if (image.status != softgpu::ImageStatus::kOk || image.machine_code) continue;
    for (const std::string& text : image.ptx) check_program(file, {text}, options, tally);
  }
  return true;
}

void print(const std::string& name, const Tally& tally, bool load_only) {
  std::printf("%s: %zu modules, %zu bytes, loaded in %.2f s; ", name.c_str(), tally.modules, tally.bytes,
              tally.seconds);
  if (load_only) {
    std::printf("%zu kernels\n", tally.kernels);
  } else {
    std::printf("%zu of %zu kernels lower", tally.lowered, tally.kernels);
    if (tally.completed != 0) {
      std::printf("; %zu programs call functions that their user links in, and were tried with empty ones",
                  tally.completed);
    }
    std::printf("\n");
  }
  for (const auto& [reason, what] : tally.reasons) {
    std::printf("  %6zu  %s  [%s]\n", what.count, reason.c_str(), what.where.c_str());
  }
}

constexpr char kUsage[] =
    "usage: softgpu-ptx-check [--load] [--each] [--list] [--kernel NAME] FILE...\n"
    "Says of PTX files, programs and libraries which of their kernels the software GPU runs, and why not the others.\n"
    "  --load   only parses\n"
    "  --each   a line for each file\n"
    "  --list   a line for each kernel\n"
    "  --kernel lowers only the kernel of that (mangled) name\n"
    "Units of one -rdc program are linked with each other.\n";

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
    } else if (word == "--kernel" && i + 1 < argc) {
      options.kernel = argv[++i];
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
