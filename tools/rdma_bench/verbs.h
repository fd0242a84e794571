#pragma once

// libibverbs.so.1 by dlopen. (The header's own names must not be called: they would link it.)

#include <infiniband/verbs.h>

#include <string>

namespace tide::fabric {

struct Verbs {
  std::string why_not;  // empty: all functions are there
  ibv_device** (*get_device_list)(int* count) = nullptr;
  void (*free_device_list)(ibv_device** list) = nullptr;
  const char* (*get_device_name)(ibv_device* device) = nullptr;
  ibv_context* (*open_device)(ibv_device* device) = nullptr;
  int (*close_device)(ibv_context* context) = nullptr;
  int (*query_device)(ibv_context* context, ibv_device_attr* attributes) = nullptr;
  // Fills the older, shorter form of the struct. Zero the rest.
  int (*query_port)(ibv_context* context, uint8_t port, ibv_port_attr* attributes) = nullptr;

  static const Verbs& get();

 private:
  void load();
};

}  // namespace tide::fabric
