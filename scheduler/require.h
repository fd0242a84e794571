#pragma once

// What a job requires of its GPUs beside their number and memory: their model, their server's labels, and how near to
// each other they lie. Pure; the one rule of who may use what.

#include <cstdint>
#include <set>
#include <string>

#include "base/outcome.h"

namespace tide::sched {

struct JobView;
struct GpuView;

enum class Together : uint8_t { kPreferred = 0, kServer = 1, kSwitch = 2 };  // the numbers are in the record

struct Requirements {
  std::string model;             // words of the GPU's name, like "H200"; empty: any
  std::set<std::string> labels;  // each of which its server has
  Together together = Together::kPreferred;

  bool any() const { return !model.empty() || !labels.empty() || together != Together::kPreferred; }
  bool operator==(const Requirements&) const = default;
};

// What is known of a GPU, from its agent and from pool.toml. Shared by all views of it; never changes.
struct GpuTraits {
  std::string model;  // as the driver calls it
  std::string network_switch;
  std::set<std::string> labels;
};

// What pool.toml says of a server.
struct ServerTraits {
  std::set<std::string> labels;
  std::string network_switch;  // empty: not known
  bool operator==(const ServerTraits&) const = default;
};

// Whether the words of `wanted` stand in the name one after the other: "h200" and "NVIDIA H200" in "NVIDIA H200 NVL",
// "A10" not in "NVIDIA A100". Case does not count.
bool is_model(const std::string& name, const std::string& wanted);

// Words of a GPU's name, as pool.toml may have them.
bool is_model_text(const std::string& text);
// Whether these are the same words.
bool is_same_model(const std::string& a, const std::string& b);

// Without Together, which is about several GPUs.
bool may_use(const JobView& job, const GpuView& gpu);

// All physical GPUs of a job that is to lie together have the same group: their server, or their switch (behind no
// switch that is known a server is near to itself only). Empty: no matter.
std::string group_of(const JobView& job, const GpuView& gpu);

// "KEY=VALUE" of letters, digits, '-', '_', '.' and '/', each 1 to 63.
bool is_label(const std::string& text);

// As the record keeps them, and people read them: "model H200, label rack=a, together server"; empty: none.
std::string to_text(const Requirements& require);
// False: it is none of what to_text() gives.
bool parse_requirements(const std::string& text, Requirements* require);
bool parse_together(const std::string& text, Together* together);  // "server", "switch"

}  // namespace tide::sched
