#pragma once

// One UCP worker and what links and streams need of it. Used under its user's lock, except fd().

#include <ucp/api/ucp.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/outcome.h"

namespace tide {

class UcxWorker {
 public:
  using OnMessage = ucs_status_t (*)(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                     const ucp_am_recv_param_t* param);
  using OnFailure = void (*)(void* self, ucp_ep_h endpoint, ucs_status_t status);
  using OnConnection = void (*)(ucp_conn_request_h request, void* self);

  static Outcome create(std::unique_ptr<UcxWorker>* worker);
  // One whose far side may be killed in the middle of a message; it copies what it sends.
  static Outcome create_for_stream(std::unique_ptr<UcxWorker>* worker);
  // Makes one early, on any thread, which the next create() takes; nothing where there is one, or it fails.
  static void prepare();
  ~UcxWorker();

  // Whole messages only; they must carry the endpoint that they came by (sender_of).
  Outcome handle(unsigned id, OnMessage handler, void* self);
  // `address`: in, where ("" means TIDE_UCX_BIND, else 127.0.0.1; port 0); out, ADDRESS:PORT.
  Outcome listen(std::string* address, OnConnection handler, void* self);
  void stop_listening();
  Outcome connect(const std::string& address, OnFailure on_failure, void* self, ucp_ep_h* endpoint);
  Outcome accept(ucp_conn_request_h request, OnFailure on_failure, void* self, ucp_ep_h* endpoint);
  void reject(ucp_conn_request_h request);
  // Gives what was sent `flush_ms` to leave; 0 cuts the connection.
  void close(ucp_ep_h endpoint, uint32_t flush_ms);
  // Instead, where a message is half sent: UCX (1.13) aborts the process when such an endpoint is cut and its far side
  // ends. Nothing more is done for it.
  void leave() { stuck_ = true; }

  bool progress();
  bool arm();
  int fd() const { return fd_; }
  size_t header_bytes_max() const { return header_bytes_max_; }

 private:
  static Outcome create_in(bool copies, std::unique_ptr<UcxWorker>* worker);

  ucp_worker_h worker_ = nullptr;
  ucp_listener_h listener_ = nullptr;
  int fd_ = -1;
  bool stuck_ = false;  // an endpoint could not be closed
  size_t header_bytes_max_ = 0;
};

inline ucp_ep_h sender_of(const ucp_am_recv_param_t* param) {
  return (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0 ? param->reply_ep : nullptr;
}

}  // namespace tide
