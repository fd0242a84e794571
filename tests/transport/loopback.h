#pragma once

// A socket that listens on this machine, for tests of TCP.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace tide {

class Loopback {
 public:
  explicit Loopback(int backlog) {
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address_), sizeof address_), 0);
    EXPECT_EQ(listen(fd_, backlog), 0);
    socklen_t size = sizeof address_;
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address_), &size), 0);
  }
  ~Loopback() { close(fd_); }
  Loopback(const Loopback&) = delete;
  Loopback& operator=(const Loopback&) = delete;

  int fd() const { return fd_; }
  const sockaddr_in& address() const { return address_; }
  std::string text() const { return "127.0.0.1:" + std::to_string(ntohs(address_.sin_port)); }

 private:
  const int fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address_{};
};

// What reaches a socket is dropped before its system looks at it, as if it came to no machine.
inline void set_cut_off(int socket, bool is) {
  sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
  const sock_fprog program = {1, &nothing};
  const int option = is ? SO_ATTACH_FILTER : SO_DETACH_FILTER;
  ASSERT_EQ(setsockopt(socket, SOL_SOCKET, option, &program, sizeof program), 0);
}

}  // namespace tide
