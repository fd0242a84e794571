// Plain TCP sockets, non-blocking, beside the control connection: the same addresses, a port of the system's choice.

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/log.h"
#include "tools/rdma_bench/stream_path.h"

namespace tide::fabric {
namespace {

class TcpChannel : public StreamChannel {
 public:
  explicit TcpChannel(const Control& control) : control_(control), data_(control.timeout_ms()) {}
  ~TcpChannel() override {
    if (listener_ >= 0) close(listener_);
  }

  // The server's offer is a port; the client has none to make.
  Outcome offer(std::string* how) override {
    if (control_.is_client()) return {};
    uint32_t port = 0;
    const Outcome outcome = listen_on(control_.own_address(), &port, &listener_);
    if (outcome.ok()) *how = std::to_string(port);
    return outcome;
  }

  Outcome join(const std::string& how) override { return listener_ >= 0 ? accept_one() : connect_to(how); }

  Facts facts() override {
    Facts facts;
    facts.route = "tcp " + control_.own_address();
    tcp_info info{};
    socklen_t bytes = sizeof info;
    if (getsockopt(data_.fd(), IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return facts;
    facts.retransmits = info.tcpi_total_retrans;
    facts.segments = info.tcpi_data_segs_out;
    return facts;
  }

 protected:
  int64_t write_some(const char* data, uint64_t bytes) override {
    return checked(send(data_.fd(), data, bytes, MSG_NOSIGNAL), "sending");
  }
  int64_t read_some(char* data, uint64_t bytes) override {
    const ssize_t got = recv(data_.fd(), data, bytes, 0);
    if (got == 0) fail("the connection was closed by the other side");
    return got == 0 ? -1 : checked(got, "receiving");
  }

 private:
  int64_t checked(ssize_t count, const char* what) {
    if (count >= 0) return count;
    if (errno == EAGAIN || errno == EINTR) return 0;
    fail(format("%s failed: %s", what, strerror(errno)));
    return -1;
  }

  Outcome accept_one() {
    pollfd what{.fd = listener_, .events = POLLIN, .revents = 0};
    const int fd =
        poll(&what, 1, int(control_.timeout_ms())) > 0 ? accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC) : -1;
    if (fd < 0) return Outcome::fail("no TCP connection came; does a firewall let only the control port through?");
    data_.adopt(fd, control_.peer());
    return {};
  }

  Outcome connect_to(const std::string& port) {
    const int number = atoi(port.c_str());
    const Outcome outcome = data_.connect(control_.peer_address(), uint32_t(number));
    if (outcome.ok()) return outcome;
    return Outcome::fail(
        format("cannot connect to port %d beside the control port; does a firewall let only that one "
               "through?",
               number));
  }

  const Control& control_;
  Control data_;  // only for its way to connect
  int listener_ = -1;
};

}  // namespace

std::unique_ptr<Channel> make_tcp(const PathKind&, const Control& control) {
  return std::make_unique<TcpChannel>(control);
}

}  // namespace tide::fabric
