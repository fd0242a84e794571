// UCX's active messages, over the transports that the path names. One context for each path, because a context's
// transports are chosen when it is made.

#include <sched.h>
#include <stdio.h>
#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <uct/api/uct.h>

#include <cstdlib>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "tools/rdma_bench/path.h"
#include "tools/rdma_bench/ticks.h"

namespace tide::fabric {
namespace {

constexpr unsigned kId = 1;

Outcome ucx_failure(const std::string& what, ucs_status_t status) {
  return Outcome::fail("UCX: " + what + ": " + ucs_status_string(status));
}

// What the user's environment asks of UCX, which may be the cause.
std::string as_asked() {
  std::string text;
  for (const char* name : {"UCX_TLS", "UCX_NET_DEVICES"}) {
    const char* const value = getenv(name);
    if (value != nullptr) text += (text.empty() ? " (" : ", ") + std::string(name) + "=" + value;
  }
  return text.empty() ? "" : text + ": without, it takes what it finds)";
}

// Memory that UCX made, and knows on all devices: as a job's buffers that were registered once, and ucx_perftest's.
struct Mapped {
  ucp_mem_h handle = nullptr;
  char* bytes = nullptr;
  uint64_t size = 0;
};

Outcome no_memory(uint64_t bytes, ucs_status_t status) {
  return Outcome::fail(format("UCX: cannot register %llu bytes: %s; is memlock (ulimit -l) too small?",
                              (unsigned long long)bytes, ucs_status_string(status)));
}

class UcxChannel : public Channel {
 public:
  explicit UcxChannel(const Making& making) : kind_(making.kind), control_(making.control), devices_(making.devices) {}
  ~UcxChannel() override;

  Outcome offer(std::string* how) override;
  Outcome join(const std::string& how) override;
  bool post() override;
  void progress() override { ucp_worker_progress(worker_); }
  bool registration(uint64_t bytes, uint32_t duration_ms, Histogram* histogram) override;
  Facts facts() override;

 protected:
  Outcome resize(uint64_t bytes) override {
    window_ = window(bytes);
    const Outcome outcome = map(bytes, 'x', &out_);
    return outcome.ok() ? map(bytes, 0, &in_) : outcome;
  }

 private:
  Outcome open();
  Outcome open_context();
  std::string net_devices() const;
  Outcome map(uint64_t bytes, char fill, Mapped* memory);
  void unmap(Mapped* memory);
  static ucs_status_t on_message(void* self, const void*, size_t, void* data, size_t bytes,
                                 const ucp_am_recv_param_t* param);
  static void on_received(void* request, ucs_status_t status, size_t, void* self);
  static void on_sent(void* request, ucs_status_t status, void* self);
  static void on_failure(void* self, ucp_ep_h, ucs_status_t status) {
    static_cast<UcxChannel*>(self)->fail(format("UCX: %s", ucs_status_string(status)));
  }

  const PathKind& kind_;
  const Control& control_;
  const std::vector<std::string> devices_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h endpoint_ = nullptr;
  ucp_request_param_t sending_{};  // of every message: to fill it in takes a tenth of the time of a small one
  uint64_t window_ = 2;
  Mapped out_, in_;  // in_: all that arrives lands in one place; nobody reads it
};

UcxChannel::~UcxChannel() {
  bool closed = true;
  if (endpoint_ != nullptr) {
    ucp_request_param_t params{};
    ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint_, &params);
    const uint64_t end_ns = now_ns() + 1'000'000'000;
    while (UCS_PTR_IS_PTR(request) && ucp_request_check_status(request) == UCS_INPROGRESS && now_ns() < end_ns)
      progress();
    closed = !UCS_PTR_IS_PTR(request) || ucp_request_check_status(request) != UCS_INPROGRESS;
    if (closed && UCS_PTR_IS_PTR(request)) ucp_request_free(request);
  }
  if (closed) unmap(&out_), unmap(&in_);
  // What still waits for a dead peer cannot be destroyed; the process ends soon.
  if (closed && worker_ != nullptr) ucp_worker_destroy(worker_);
  if (closed && context_ != nullptr) ucp_cleanup(context_);
}

// Empty: UCX chooses, or its environment.
std::string UcxChannel::net_devices() const {
  std::string names;
  for (const std::string& device : devices_) names += (names.empty() ? "" : ",") + device;
  if (!names.empty() || !kind_.is("tcp")) return names;
  // The same wire as the plain sockets.
  const std::vector<Interface> all = network_interfaces();
  const Interface* interface = interface_of(all, control_.own_address());
  return interface == nullptr ? "" : interface->name;
}

Outcome UcxChannel::open_context() {
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return ucx_failure("cannot read its settings", status);
  if (kind_.transport[0] != '\0') ucp_config_modify(config, "TLS", kind_.transport);
  const std::string devices = net_devices();
  if (!devices.empty()) ucp_config_modify(config, "NET_DEVICES", devices.c_str());
  if (devices_.size() > 1) ucp_config_modify(config, "MAX_RNDV_RAILS", std::to_string(devices_.size()).c_str());
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM;
  status = ucp_init(&params, config, &context_);
  ucp_config_release(config);
  return status == UCS_OK ? Outcome{} : ucx_failure("cannot start with these transports" + as_asked(), status);
}

Outcome UcxChannel::map(uint64_t bytes, char fill, Mapped* memory) {
  unmap(memory);
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  params.length = bytes;
  params.flags = UCP_MEM_MAP_ALLOCATE;
  ucs_status_t status = ucp_mem_map(context_, &params, &memory->handle);
  if (status != UCS_OK) return no_memory(bytes, status);
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  status = ucp_mem_query(memory->handle, &attributes);
  if (status != UCS_OK) return no_memory(bytes, status);
  memory->bytes = static_cast<char*>(attributes.address);
  memory->size = bytes;
  memset(memory->bytes, fill, bytes);
  return {};
}

void UcxChannel::unmap(Mapped* memory) {
  if (memory->handle != nullptr) ucp_mem_unmap(context_, memory->handle);
  *memory = {};
}

Outcome UcxChannel::open() {
  sending_.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  sending_.cb.send = on_sent;
  sending_.user_data = this;
  ucs_global_opts.log_component.log_level = UCS_LOG_LEVEL_FATAL;  // errors are told by who meets them, in one line
  const Outcome outcome = open_context();
  if (!outcome.ok()) return outcome;
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucs_status_t status = ucp_worker_create(context_, &params, &worker_);
  if (status != UCS_OK) return ucx_failure("cannot create a worker", status);
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kId;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.cb = on_message;
  handler.arg = this;
  status = ucp_worker_set_am_recv_handler(worker_, &handler);
  return status == UCS_OK ? Outcome{} : ucx_failure("cannot receive", status);
}

Outcome UcxChannel::offer(std::string* how) {
  const Outcome outcome = worker_ == nullptr ? open() : Outcome{};
  if (!outcome.ok()) return outcome;
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  const ucs_status_t status = ucp_worker_get_address(worker_, &address, &bytes);
  if (status != UCS_OK) return ucx_failure("has no address", status);
  how->assign(reinterpret_cast<const char*>(address), bytes);
  ucp_worker_release_address(worker_, address);
  return {};
}

Outcome UcxChannel::join(const std::string& how) {
  if (how.empty()) return Outcome::fail("the other side offered no address");
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(how.data());
  // No error handling by UCX: it would not use shared memory then. The control connection tells who is gone.
  params.err_handler.cb = on_failure;
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker_, &params, &endpoint_);
  if (status != UCS_OK)
    return ucx_failure("the other side is not reachable with these transports" + as_asked(), status);
  return {};
}

ucs_status_t UcxChannel::on_message(void* self, const void*, size_t, void* data, size_t bytes,
                                    const ucp_am_recv_param_t* param) {
  auto* channel = static_cast<UcxChannel*>(self);
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0) {
    ++channel->received_;
    return UCS_OK;
  }
  if (bytes > channel->in_.size) {
    channel->fail("a message is larger than agreed");
    return UCS_OK;
  }
  ucp_request_param_t receive{};
  receive.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  receive.cb.recv_am = on_received;
  receive.user_data = self;
  ucs_status_ptr_t request = ucp_am_recv_data_nbx(channel->worker_, data, channel->in_.bytes, bytes, &receive);
  if (UCS_PTR_IS_ERR(request)) channel->fail(format("UCX: %s", ucs_status_string(UCS_PTR_STATUS(request))));
  return UCS_INPROGRESS;
}

void UcxChannel::on_received(void* request, ucs_status_t status, size_t, void* self) {
  auto* channel = static_cast<UcxChannel*>(self);
  if (status != UCS_OK) channel->fail(format("UCX: receiving: %s", ucs_status_string(status)));
  ++channel->received_;
  ucp_request_free(request);
}

void UcxChannel::on_sent(void* request, ucs_status_t status, void* self) {
  auto* channel = static_cast<UcxChannel*>(self);
  if (status != UCS_OK) channel->fail(format("UCX: sending: %s", ucs_status_string(status)));
  ++channel->sent_;
  ucp_request_free(request);
}

bool UcxChannel::post() {
  if (posted_ - sent_ >= window_) return false;
  ucs_status_ptr_t request = ucp_am_send_nbx(endpoint_, kId, nullptr, 0, out_.bytes, bytes_, &sending_);
  if (UCS_PTR_IS_ERR(request)) {
    fail(format("UCX: sending: %s", ucs_status_string(UCS_PTR_STATUS(request))));
    return false;
  }
  ++posted_;
  if (request == nullptr) ++sent_;
  return true;
}

bool UcxChannel::registration(uint64_t bytes, uint32_t duration_ms, Histogram* histogram) {
  if (!kind_.registers) return false;
  std::vector<char> memory(bytes, 'x');
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = memory.data();
  params.length = bytes;
  const uint64_t end_ns = now_ns() + uint64_t(duration_ms) * 1'000'000;
  while (now_ns() < end_ns) {
    const uint64_t begin = ticks();
    ucp_mem_h handle = nullptr;
    const ucs_status_t status = ucp_mem_map(context_, &params, &handle);
    if (status != UCS_OK) {
      fail(no_memory(bytes, status).message());
      return false;
    }
    ucp_mem_unmap(context_, handle);
    histogram->add(uint64_t(double(ticks() - begin) * ns_per_tick()));
  }
  return true;
}

// UCX tells its lanes only as text: "lane[0]:  1:posix/memory.0 md[1] -> ...".
Facts UcxChannel::facts() {
  Facts facts;
  char* text = nullptr;
  size_t bytes = 0;
  FILE* out = open_memstream(&text, &bytes);
  if (out == nullptr || endpoint_ == nullptr) return facts;
  ucp_ep_print_info(endpoint_, out);
  fclose(out);
  const std::string all(text, bytes);
  free(text);
  for (size_t at = all.find("lane["); at != std::string::npos; at = all.find("lane[", at + 1)) {
    const size_t slash = all.find('/', at), end = all.find_first_of(" .\n", slash);
    const size_t begin = all.find_last_of(": ", slash) + 1;
    if (slash == std::string::npos || end == std::string::npos) break;
    const std::string lane = all.substr(begin, end - begin);
    if (facts.route.find(lane) == std::string::npos) facts.route += (facts.route.empty() ? "" : ", ") + lane;
  }
  return facts;
}

const char* kind_name(uct_device_type_t type) {
  switch (type) {
    case UCT_DEVICE_TYPE_NET:
      return "network";
    case UCT_DEVICE_TYPE_SHM:
      return "shared memory";
    case UCT_DEVICE_TYPE_ACC:
      return "accelerator";
    case UCT_DEVICE_TYPE_SELF:
      return "self";
    default:
      return "unknown";
  }
}

void add_transports(uct_component_h component, const char* domain, std::vector<UcxTransport>* found) {
  uct_md_config_t* config = nullptr;
  if (uct_md_config_read(component, nullptr, nullptr, &config) != UCS_OK) return;
  uct_md_h open = nullptr;
  const ucs_status_t status = uct_md_open(component, domain, config, &open);
  uct_config_release(config);
  if (status != UCS_OK) return;
  uct_tl_resource_desc_t* resources = nullptr;
  unsigned count = 0;
  if (uct_md_query_tl_resources(open, &resources, &count) == UCS_OK) {
    for (unsigned i = 0; i < count; ++i) {
      found->push_back({resources[i].tl_name, resources[i].dev_name, kind_name(resources[i].dev_type)});
    }
    uct_release_tl_resource_list(resources);
  }
  uct_md_close(open);
}

}  // namespace

std::vector<UcxTransport> ucx_transports(std::string* version) {
  *version = ucp_get_version_string();
  std::vector<UcxTransport> found;
  uct_component_h* components = nullptr;
  unsigned count = 0;
  if (uct_query_components(&components, &count) != UCS_OK) return found;
  for (unsigned i = 0; i < count; ++i) {
    uct_component_attr_t attributes{};
    attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCE_COUNT;
    if (uct_component_query(components[i], &attributes) != UCS_OK || attributes.md_resource_count == 0) continue;
    std::vector<uct_md_resource_desc_t> domains(attributes.md_resource_count);
    attributes.field_mask = UCT_COMPONENT_ATTR_FIELD_MD_RESOURCES;
    attributes.md_resources = domains.data();
    if (uct_component_query(components[i], &attributes) != UCS_OK) continue;
    for (const uct_md_resource_desc_t& domain : domains) add_transports(components[i], domain.md_name, &found);
  }
  uct_release_component_list(components);
  return found;
}

std::unique_ptr<Channel> make_ucx(const Making& making) { return std::make_unique<UcxChannel>(making); }

}  // namespace tide::fabric
