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
  explicit TcpChannel(const Making& making)
      : control_(making.control),
        device_(making.devices.empty() ? "" : making.devices[0]),
        data_(making.control.timeout_ms()) {}
  ~TcpChannel() override {
    if (listener_ >= 0) close(listener_);
  }

  // The server's offer is a port and an address; the client has none to make.
  Outcome offer(std::string* how) override {
    if (control_.is_client()) return {};
    uint32_t port = 0;
    std::string address = control_.own_address();
    if (!device_.empty() && !address_of_device(&address)) return Outcome::fail(device_ + " has no address");
    const Outcome outcome = listen_on(address, &port, &listener_, device_);
    if (outcome.ok()) *how = std::to_string(port) + " " + address;
    return outcome;
  }

  Outcome join(const std::string& how) override { return listener_ >= 0 ? accept_one() : connect_to(how); }

  Facts facts() override {
    Facts facts;
    facts.route = "tcp " + data_.own_address();
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

  // An interface may have several; the first one that a network has.
  bool address_of_device(std::string* address) const {
    address->clear();
    for (const Interface& interface : network_interfaces()) {
      if (interface.name != device_ || (!address->empty() && interface.network.empty())) continue;
      *address = interface.address;
      if (!interface.network.empty()) break;
    }
    return !address->empty();
  }

  Outcome connect_to(const std::string& how) {
    const int number = atoi(how.c_str());
    const size_t space = how.find(' ');
    if (space == std::string::npos) return Outcome::fail("the other side offered no port");
    const std::string address = how.substr(space + 1);
    const Outcome outcome = data_.connect(address, uint32_t(number), device_);
    if (outcome.ok()) return outcome;
    return Outcome::fail(format("cannot connect to %s port %d%s%s; does a firewall let only the control port through?",
                                address.c_str(), number, device_.empty() ? "" : " over ", device_.c_str()));
  }

  const Control& control_;
  const std::string device_;
  Control data_;  // only for its way to connect
  int listener_ = -1;
};

}  // namespace

std::unique_ptr<Channel> make_tcp(const Making& making) { return std::make_unique<TcpChannel>(making); }

}  // namespace tide::fabric
