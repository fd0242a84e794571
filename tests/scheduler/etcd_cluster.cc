#include "tests/scheduler/etcd_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

namespace tide::sched {
namespace {

constexpr const char* kEtcd = "/usr/bin/etcd";
bool own_network = false;

bool run(const std::string& command) { return system((command + " >/dev/null 2>&1").c_str()) == 0; }

uint16_t free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  socklen_t length = sizeof address;
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

std::string netns_of(pid_t pid) { return "/proc/" + std::to_string(pid) + "/ns/net"; }

// A process that keeps a new network namespace; it ends with us.
pid_t hold_namespace() {
  int ready[2];
  if (pipe(ready) != 0) return 0;
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const bool made = unshare(CLONE_NEWNET) == 0;
    (void)!write(ready[1], made ? "y" : "n", 1);
    for (;;) pause();
  }
  char said = 'n';
  (void)!read(ready[0], &said, 1);
  close(ready[0]);
  close(ready[1]);
  return pid;
}

}  // namespace

bool EtcdCluster::installed() { return access(kEtcd, X_OK) == 0; }

bool EtcdCluster::take_namespace() {
  own_network = access("/usr/sbin/ip", X_OK) == 0 && unshare(CLONE_NEWNET) == 0 && run("ip link set lo up") &&
                run("ip link add br0 type bridge") && run("ip addr add 10.99.0.254/24 dev br0") &&
                run("ip link set br0 up");
  return own_network;
}

EtcdCluster::EtcdCluster() : members_(3) {
  char path[] = "/tmp/tide-etcd-XXXXXX";
  directory_ = mkdtemp(path);
  for (size_t i = 0; i < members_.size(); ++i) {
    const std::string host = own_network ? "10.99.0." + std::to_string(i + 1) : "127.0.0.1";
    members_[i].client = host + ":" + std::to_string(own_network ? 2379 : free_port());
    members_[i].peer = host + ":" + std::to_string(own_network ? 2380 : free_port());
    place_.members.push_back(members_[i].client);
  }
  if (own_network) make_network();
  for (size_t i = 0; i < members_.size(); ++i) start(i);
}

void EtcdCluster::make_network() {
  for (size_t i = 0; i < members_.size(); ++i) {
    const pid_t pid = members_[i].holder = hold_namespace();
    const std::string n = std::to_string(i + 1), in = "nsenter --net=" + netns_of(pid) + " ";
    run("ip link add v" + n + " type veth peer name eth0 netns " + std::to_string(pid));
    run("ip link set v" + n + " master br0 up");
    run(in + "ip addr add 10.99.0." + n + "/24 dev eth0");
    run(in + "ip link set eth0 up");
    run(in + "ip link set lo up");
  }
}

EtcdCluster::~EtcdCluster() {
  for (size_t i = 0; i < members_.size(); ++i) {
    kill(i);
    if (members_[i].holder == 0) continue;
    run("ip link del v" + std::to_string(i + 1));
    ::kill(members_[i].holder, SIGKILL);
    waitpid(members_[i].holder, nullptr, 0);
  }
  std::filesystem::remove_all(directory_);
}

std::vector<std::string> EtcdCluster::arguments(size_t member) const {
  std::string cluster;
  for (size_t i = 0; i < members_.size(); ++i) {
    cluster += (i == 0 ? "" : ",") + ("m" + std::to_string(i)) + "=http://" + members_[i].peer;
  }
  const std::string name = "m" + std::to_string(member);
  const std::string client = "http://" + members_[member].client, peer = "http://" + members_[member].peer;
  return {kEtcd,
          "--name=" + name,
          "--data-dir=" + directory_ + "/" + name,
          "--listen-client-urls=" + client,
          "--advertise-client-urls=" + client,
          "--listen-peer-urls=" + peer,
          "--initial-advertise-peer-urls=" + peer,
          "--initial-cluster=" + cluster,
          "--log-level=error"};
}

void EtcdCluster::start(size_t member) {
  std::vector<std::string> words = arguments(member);
  const std::string log = directory_ + "/m" + std::to_string(member) + ".log";
  const std::string network = members_[member].holder != 0 ? netns_of(members_[member].holder) : "";
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = members_[member].pid = fork();
  if (pid != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!network.empty() && setns(open(network.c_str(), O_RDONLY | O_CLOEXEC), CLONE_NEWNET) != 0) _exit(126);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(out, 1);
  dup2(out, 2);
  setenv("ETCD_UNSUPPORTED_ARCH", "arm64", 0);
  execv(argv[0], argv.data());
  _exit(127);
}

void EtcdCluster::kill(size_t member) {
  pid_t& pid = members_[member].pid;
  if (pid == 0) return;
  ::kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  pid = 0;
}

void EtcdCluster::stop(size_t member) { ::kill(members_[member].pid, SIGSTOP); }
void EtcdCluster::go_on(size_t member) { ::kill(members_[member].pid, SIGCONT); }
void EtcdCluster::cut(size_t member, bool off) {
  run("ip link set v" + std::to_string(member + 1) + (off ? " down" : " up"));
}

}  // namespace tide::sched
