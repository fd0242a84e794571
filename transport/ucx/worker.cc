#include "transport/ucx/worker.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/threads.h"
#include "transport/ucx/choice.h"

namespace tide {
namespace {

constexpr size_t kDescriptorsLeast = 40;  // of a worker with one connection, and some to spare

Outcome failure(const char* what, ucs_status_t status) {
  return Outcome::fail(format("UCX: %s: %s", what, ucs_status_string(status)));
}

// What cannot be left to the user's environment. A setting that this UCX does not know is not needed by it.
void configure(ucp_config_t* config, const std::string& transports, bool copies) {
  // Of what lies where it is sent from UCX 1.13 loses count when the far side dies in the middle of it, and aborts.
  if (copies) ucp_config_modify(config, "ZCOPY_THRESH", "inf");
  // Rendezvous would let a large message be overtaken, and uses put over TCP, which is slow.
  ucp_config_modify(config, "RNDV_THRESH", "inf");
  ucp_config_modify(config, "MAX_EAGER_RAILS", "1");
  ucp_config_modify(config, "TLS", transports.c_str());
}

std::string description(ucp_context_h context) {
  char* text = nullptr;
  size_t bytes = 0;
  FILE* const to = open_memstream(&text, &bytes);
  if (to == nullptr) return "";
  ucp_context_print_info(context, to);
  fclose(to);
  const std::string said(text, bytes);
  free(text);
  return said;
}

// One context a process for links and one for streams, which copies what it sends. A forked child leaves its parent's
// alone and makes its own.
Outcome context(ucp_context_h* context, bool copies) {
  static std::mutex* mu = new std::mutex;
  static ucp_context_h contexts[2] = {};
  static pid_t owners[2] = {};
  static std::string& transports = *new std::string;
  const std::lock_guard lock(*mu);
  ucp_context_h& shared = contexts[copies];
  pid_t& owner = owners[copies];
  if (shared != nullptr && owner == getpid()) {
    *context = shared;
    return room_for_another(transports);
  }
  const Outcome outcome = choose_transports(&transports);
  if (!outcome.ok()) return outcome;
  ucp_config_t* config = nullptr;
  ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
  if (status != UCS_OK) return failure("cannot read its settings", status);
  configure(config, transports, copies);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 1;
  ucp_context_h made = nullptr;
  status = ucp_init(&params, config, &made);
  ucp_config_release(config);
  if (status == UCS_ERR_NO_DEVICE) return no_device_for(transports);
  if (status != UCS_OK) return failure("cannot start", status);
  if (Outcome reaches = reaches_others(transports, description(made)); !reaches.ok()) {
    ucp_cleanup(made);
    return reaches;
  }
  shared = made;
  owner = getpid();
  *context = shared;
  return {};
}

// Numeric addresses only: "127.0.0.1", "10.0.0.5:77", "[::1]:5".
Outcome parse_address(const std::string& text, sockaddr_storage* address, socklen_t* bytes) {
  std::string host = text, port = "0";
  const size_t colon = text.rfind(':');
  if (colon != std::string::npos && (text.find(':') == colon || text[colon - 1] == ']')) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (host.empty() || getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return Outcome::fail("'" + text + "' is not ADDRESS:PORT in numbers");
  }
  memcpy(address, found->ai_addr, found->ai_addrlen);
  *bytes = found->ai_addrlen;
  freeaddrinfo(found);
  return {};
}

std::string text_of(const sockaddr_storage& address) {
  char host[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
    return format("[%s]:%u", host, ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
  return format("%s:%u", host, ntohs(v4.sin_port));
}

// UCX starts one with its first worker, and aborts the process where it cannot.
Outcome try_thread() {
  Thread thread;
  if (Outcome outcome = thread.start([] {}); !outcome.ok()) return outcome;
  thread.join();
  return {};
}

// Nor does it live through a lack of descriptors.
Outcome try_descriptors() {
  std::vector<int> taken;
  while (taken.size() < kDescriptorsLeast) {
    const int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0) break;
    taken.push_back(fd);
  }
  for (const int fd : taken) ::close(fd);
  if (taken.size() == kDescriptorsLeast) return {};
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return Outcome::fail(format(
      "UCX needs %zu open files, and this process may have %zu more only, %llu in all (RLIMIT_NOFILE): raise it, "
      "with `ulimit -n` or LimitNOFILE=",
      kDescriptorsLeast, taken.size(), static_cast<unsigned long long>(limit.rlim_cur)));
}

}  // namespace

namespace {

// Made before it was asked for.
struct Spare {
  std::mutex mu;
  std::unique_ptr<UcxWorker> worker;
  pid_t owner = 0;
};

Spare& spare() {
  static Spare& spare = *new Spare;
  return spare;
}

}  // namespace

void UcxWorker::prepare() {
  Spare& there = spare();
  const std::lock_guard lock(there.mu);
  if (there.worker != nullptr && there.owner == getpid()) return;
  [[maybe_unused]] UcxWorker* of_our_parent = there.worker.release();
  if (create_in(false, &there.worker).ok()) there.owner = getpid();
}

Outcome UcxWorker::create(std::unique_ptr<UcxWorker>* worker) {
  {
    Spare& there = spare();
    const std::lock_guard lock(there.mu);
    if (there.worker != nullptr && there.owner == getpid()) {
      *worker = std::move(there.worker);
      return {};
    }
  }
  return create_in(false, worker);
}

Outcome UcxWorker::create_for_stream(std::unique_ptr<UcxWorker>* worker) { return create_in(true, worker); }

Outcome UcxWorker::create_in(bool copies, std::unique_ptr<UcxWorker>* worker) {
  ucp_context_h in = nullptr;
  if (Outcome outcome = try_thread(); !outcome.ok()) return outcome;
  if (Outcome outcome = try_descriptors(); !outcome.ok()) return outcome;
  const Outcome outcome = context(&in, copies);
  if (!outcome.ok()) return outcome;
  auto made = std::make_unique<UcxWorker>();
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  ucs_status_t status = ucp_worker_create(in, &params, &made->worker_);
  if (status != UCS_OK) return failure("cannot create a worker", status);
  status = ucp_worker_get_efd(made->worker_, &made->fd_);
  if (status != UCS_OK) return failure("cannot sleep", status);
  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  status = ucp_worker_query(made->worker_, &attributes);
  if (status != UCS_OK) return failure("cannot query a worker", status);
  made->header_bytes_max_ = attributes.max_am_header;
  *worker = std::move(made);
  return {};
}

UcxWorker::~UcxWorker() {
  stop_listening();
  // What still waits for a far side that is gone cannot be destroyed: UCX would abort the process.
  if (worker_ != nullptr && !stuck_) ucp_worker_destroy(worker_);
}

Outcome UcxWorker::handle(unsigned id, OnMessage handler, void* self) {
  ucp_am_handler_param_t params{};
  params.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS | UCP_AM_HANDLER_PARAM_FIELD_CB |
                      UCP_AM_HANDLER_PARAM_FIELD_ARG;
  params.id = id;
  params.flags = UCP_AM_FLAG_WHOLE_MSG;
  params.cb = handler;
  params.arg = self;
  const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_, &params);
  return status == UCS_OK ? Outcome{} : failure("cannot receive", status);
}

Outcome UcxWorker::listen(std::string* address, OnConnection handler, void* self) {
  std::string where = *address;
  const char* bind = getenv("TIDE_UCX_BIND");
  if (where.empty()) where = bind != nullptr && bind[0] != '\0' ? bind : "127.0.0.1";
  sockaddr_storage storage{};
  socklen_t bytes = 0;
  const Outcome outcome = parse_address(where, &storage, &bytes);
  if (!outcome.ok()) return outcome;
  ucp_listener_params_t params{};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&storage);
  params.sockaddr.addrlen = bytes;
  params.conn_handler.cb = handler;
  params.conn_handler.arg = self;
  ucs_status_t status = ucp_listener_create(worker_, &params, &listener_);
  if (status != UCS_OK) return failure(("cannot listen on " + where).c_str(), status);
  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  status = ucp_listener_query(listener_, &attributes);
  if (status != UCS_OK) return failure("cannot learn the port", status);
  *address = text_of(attributes.sockaddr);
  return {};
}

void UcxWorker::stop_listening() {
  if (listener_ != nullptr) ucp_listener_destroy(listener_);
  listener_ = nullptr;
}

Outcome UcxWorker::connect(const std::string& address, OnFailure on_failure, void* self, ucp_ep_h* endpoint) {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
  const Outcome outcome = parse_address(address, &storage, &bytes);
  if (!outcome.ok()) return outcome;
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR | UCP_EP_PARAM_FIELD_ERR_HANDLER |
                      UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = on_failure;
  params.err_handler.arg = self;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&storage);
  params.sockaddr.addrlen = bytes;
  const ucs_status_t status = ucp_ep_create(worker_, &params, endpoint);
  return status == UCS_OK ? Outcome{} : failure(("cannot connect to " + address).c_str(), status);
}

Outcome UcxWorker::accept(ucp_conn_request_h request, OnFailure on_failure, void* self, ucp_ep_h* endpoint) {
  ucp_ep_params_t params{};
  params.field_mask =
      UCP_EP_PARAM_FIELD_CONN_REQUEST | UCP_EP_PARAM_FIELD_ERR_HANDLER | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.conn_request = request;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = on_failure;
  params.err_handler.arg = self;
  const ucs_status_t status = ucp_ep_create(worker_, &params, endpoint);
  return status == UCS_OK ? Outcome{} : failure("cannot accept a connection", status);
}

void UcxWorker::reject(ucp_conn_request_h request) {
  if (listener_ != nullptr) ucp_listener_reject(listener_, request);
}

void UcxWorker::close(ucp_ep_h endpoint, uint32_t flush_ms) {
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = flush_ms == 0 ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint, &params);
  if (request == nullptr || UCS_PTR_IS_ERR(request)) return;
  const uint64_t end = now_ns() + uint64_t(flush_ms == 0 ? 1000 : flush_ms) * 1'000'000;
  while (ucp_request_check_status(request) == UCS_INPROGRESS && now_ns() < end) {
    if (!progress()) sched_yield();
  }
  stuck_ = stuck_ || ucp_request_check_status(request) == UCS_INPROGRESS;
  ucp_request_free(request);
}

bool UcxWorker::progress() {
  bool any = false;
  for (int i = 0; i < 16 && ucp_worker_progress(worker_) != 0; ++i) any = true;
  return any;
}

bool UcxWorker::arm() { return ucp_worker_arm(worker_) != UCS_ERR_BUSY; }

}  // namespace tide
