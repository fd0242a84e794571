#pragma once

// Three real etcd members for a test, in a directory of their own. Where the process may have network namespaces
// (EtcdCluster::take_namespace()) each member has one, so that it can be cut off; else all are on 127.0.0.1.

#include <sys/types.h>

#include <string>
#include <vector>

#include "scheduler/etcd_place.h"

namespace tide::sched {

class EtcdCluster {
 public:
  static bool installed();
  // Before any thread is made: gives this process a network of its own. False: it may not.
  static bool take_namespace();

  EtcdCluster();
  ~EtcdCluster();
  EtcdCluster(const EtcdCluster&) = delete;
  EtcdCluster& operator=(const EtcdCluster&) = delete;

  const EtcdPlace& place() const { return place_; }
  size_t size() const { return members_.size(); }
  void start(size_t member);
  void kill(size_t member);  // SIGKILL; returns when it is dead
  void stop(size_t member);  // SIGSTOP
  void go_on(size_t member);
  void cut(size_t member, bool off);  // from all others and from us; needs the namespaces

 private:
  struct Member {
    pid_t pid = 0, holder = 0;  // holder: of its namespace
    std::string client, peer;   // "ADDRESS:PORT"
  };
  void make_network();
  std::vector<std::string> arguments(size_t member) const;

  std::string directory_;
  EtcdPlace place_;
  std::vector<Member> members_;
};

}  // namespace tide::sched
