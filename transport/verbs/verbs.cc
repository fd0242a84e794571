#include "transport/verbs/verbs.h"

#include <dlfcn.h>

#include <type_traits>

namespace tide {

const Verbs& Verbs::get() {
  // Never destroyed: other people's processes may end in any order.
  static const Verbs* verbs = [] {
    auto* made = new Verbs;
    made->load();
    return made;
  }();
  return *verbs;
}

void Verbs::load() {
  void* library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    why_not = "libibverbs.so.1 cannot be loaded; apt install libibverbs1 ibverbs-providers";
    return;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) why_not = std::string("this libibverbs has no ") + name;
  };
  find(get_device_list, "ibv_get_device_list");
  find(free_device_list, "ibv_free_device_list");
  find(get_device_name, "ibv_get_device_name");
  find(open_device, "ibv_open_device");
  find(close_device, "ibv_close_device");
  find(query_device, "ibv_query_device");
  find(query_port, "ibv_query_port");
  find(query_gid, "ibv_query_gid");
  find(alloc_pd, "ibv_alloc_pd");
  find(dealloc_pd, "ibv_dealloc_pd");
  find(reg_mr, "ibv_reg_mr");
  find(dereg_mr, "ibv_dereg_mr");
  find(create_comp_channel, "ibv_create_comp_channel");
  find(destroy_comp_channel, "ibv_destroy_comp_channel");
  find(create_cq, "ibv_create_cq");
  find(destroy_cq, "ibv_destroy_cq");
  find(get_cq_event, "ibv_get_cq_event");
  find(ack_cq_events, "ibv_ack_cq_events");
  find(get_async_event, "ibv_get_async_event");
  find(ack_async_event, "ibv_ack_async_event");
  find(create_qp, "ibv_create_qp");
  find(modify_qp, "ibv_modify_qp");
  find(destroy_qp, "ibv_destroy_qp");
  find(wc_status_str, "ibv_wc_status_str");
  // Before Linux 5.12 a fork would take the pages of queues from the parent; later it does nothing.
  if (const auto fork_init = reinterpret_cast<int (*)()>(dlsym(library, "ibv_fork_init")); fork_init != nullptr) {
    fork_init();
  }
}

}  // namespace tide
