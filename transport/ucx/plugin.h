#pragma once

// What libtideucx.so offers to the library that loads it (ucx.cc). Both are always of one build.

#include <cstdint>
#include <memory>
#include <string>

#include "transport/carrier.h"
#include "transport/stream.h"

namespace tide {

inline constexpr uint32_t kUcxPluginVersion = 5;
inline constexpr const char* kUcxPluginSymbol = "tide_ucx_plugin";

struct UcxPlugin {
  uint32_t version = kUcxPluginVersion;
  void (*prepare)();
  Outcome (*connect)(const std::string& data, std::unique_ptr<Carrier>* carrier);
  Outcome (*listen)(std::string* data, std::unique_ptr<Carrier>* carrier);
  Outcome (*listen_stream)(std::string* address, std::unique_ptr<StreamListener>* listener);
  Outcome (*connect_stream)(const std::string& address, uint32_t timeout_ms, std::unique_ptr<ByteStream>* stream,
                            bool* refused);
};

using UcxPluginFunction = const UcxPlugin* (*)();

}  // namespace tide
