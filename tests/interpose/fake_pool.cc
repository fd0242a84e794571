#include "fake_pool.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace tide {
namespace {

int listen_at(const std::string& path) {
  const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (bind(s, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(s, 16) != 0) abort();
  return s;
}

// The next connection, or -1 when it is time to stop.
int next_client(int listener, const std::atomic<bool>& stop) {
  while (!stop) {
    pollfd p{listener, POLLIN, 0};
    if (poll(&p, 1, 20) == 1) return accept(listener, nullptr, nullptr);
  }
  return -1;
}

}  // namespace

FakePool::FakePool(uint32_t vgpus) : vgpus_(vgpus) {
  char path[] = "/tmp/tide-fake-XXXXXX";
  if (mkdtemp(path) == nullptr) abort();
  folder_ = path;
  door_ = listen_at(folder_ + "/door");
  agent_ = listen_at(folder_ + "/agent");
  threads_.emplace_back([this] { serve_door(); });
  threads_.emplace_back([this] { serve_agent(); });
}

FakePool::~FakePool() {
  stop_ = true;
  for (auto& t : threads_) t.join();
  for (Vgpu& v : vgpus_) {
    if (v.worker != nullptr) v.worker->stop();
  }
  close(door_);
  close(agent_);
  unlink((folder_ + "/door").c_str());
  unlink((folder_ + "/agent").c_str());
  rmdir(folder_.c_str());
}

void FakePool::join() {
  setenv("TIDE_DOOR", (folder_ + "/door").c_str(), 1);
  setenv("TIDE_JOB", "job-1", 1);
  setenv("TIDE_TOKEN", std::string(64, 'a').c_str(), 1);
  setenv("TIDE_TRANSPORT", "shm", 1);
}

void FakePool::leave() {
  for (const char* name : {"TIDE_DOOR", "TIDE_JOB", "TIDE_TOKEN", "TIDE_TRANSPORT"}) unsetenv(name);
}

std::string FakePool::endpoint() const { return Endpoint{this_host_id(), folder_ + "/agent", ""}.text(); }

void FakePool::serve_door() {
  std::vector<std::thread> talks;
  for (int s; (s = next_client(door_, stop_)) >= 0;) talks.emplace_back([this, s] { talk_to_client(s); });
  for (auto& t : talks) t.join();
}

void FakePool::talk_to_client(int socket) {
  while (!stop_) {
    pollfd p{socket, POLLIN, 0};
    if (poll(&p, 1, 20) != 1) continue;
    DoorType type{};
    std::string payload, answer;
    if (!receive_frame(socket, 1000, &type, &payload).ok()) break;
    const std::lock_guard lock(mu_);
    if (type == DoorType::kHello) {
      ++hellos;
      DoorJob job{uint32_t(vgpus_.size()), 0};
      answer.append(reinterpret_cast<char*>(&job), sizeof job);
      for (const Vgpu& v : vgpus_) {
        DoorVgpu vgpu;
        vgpu.epoch = v.epoch;
        vgpu.memory_bytes = 256u << 20;
        strcpy(vgpu.endpoint, endpoint().c_str());
        vgpu.device_info_bytes = sizeof(DeviceInfo);
        const DeviceInfo info = fake_device();
        answer.append(reinterpret_cast<char*>(&vgpu), sizeof vgpu);
        answer.append(reinterpret_cast<const char*>(&info), sizeof info);
      }
      if (!send_frame(socket, DoorType::kJob, answer.data(), answer.size()).ok()) break;
    } else if (type == DoorType::kWhere) {
      DoorWhere where;
      memcpy(&where, payload.data(), sizeof where);
      DoorPlace place;
      place.vgpu = where.vgpu;
      place.epoch = vgpus_[where.vgpu].epoch;
      strcpy(place.endpoint, endpoint().c_str());
      if (!send_frame(socket, DoorType::kPlace, &place, sizeof place).ok()) break;
    } else if (type == DoorType::kMeasure) {
      ++measures;
      const DoorUsage counts{uint32_t(usage.vgpus.size()), uint32_t(usage.clients.size())};
      answer.append(reinterpret_cast<const char*>(&counts), sizeof counts);
      answer.append(reinterpret_cast<const char*>(usage.vgpus.data()), usage.vgpus.size() * sizeof usage.vgpus[0]);
      answer.append(reinterpret_cast<const char*>(usage.clients.data()),
                    usage.clients.size() * sizeof usage.clients[0]);
      if (!send_frame(socket, DoorType::kUsage, answer.data(), answer.size()).ok()) break;
    }
  }
  close(socket);
}

void FakePool::serve_agent() {
  for (int s; (s = next_client(agent_, stop_)) >= 0;) {
    DoorType type{};
    std::string payload;
    int fd = -1;
    if (receive_frame(s, 1000, &type, &payload, &fd).ok() && type == DoorType::kOpen)
      open(s, payload, fd);
    else
      close(s);
  }
}

void FakePool::open(int socket, const std::string& payload, int fd) {
  DoorOpen ask;
  memcpy(&ask, payload.data(), std::min(sizeof ask, payload.size()));
  const std::lock_guard lock(mu_);
  Vgpu& vgpu = vgpus_[ask.vgpu];
  ++opens;
  if (refuse_opens || ask.epoch != vgpu.epoch || fd < 0) {
    DoorRefused refused;
    refused.code = refusal;
    strcpy(refused.message, "this epoch is over");
    (void)send_frame(socket, DoorType::kRefused, &refused, sizeof refused).ok();
    close(socket);
    return;
  }
  std::unique_ptr<Link> link;
  std::string data;
  EXPECT_TRUE(find_transport("shm")->accept(socket, fd, &data, &link).ok());
  DoorOpened opened;
  opened.worker_pid = uint32_t(getpid());
  opened.epoch = ask.epoch;
  strncpy(opened.transport_data, data.c_str(), sizeof opened.transport_data - 1);
  if (protects) opened.flags = kOpenedProtected;
  const FakeWorker* before = vgpu.past.empty() ? nullptr : vgpu.past.back().get();
  if (vgpu.recovers) {
    vgpu.recovers = false;
    opened.flags |= kOpenedRecovered;
    opened.sequence = vgpu.saved.sequence;
    opened.answers = vgpu.saved.answers;
    vgpu.worker = std::make_unique<FakeWorker>(std::move(link), ask.epoch, vgpu.saved);
  } else {
    vgpu.worker = std::make_unique<FakeWorker>(std::move(link), ask.epoch, before);
  }
  if (before == nullptr) vgpu.worker->kernels = kernels;
  vgpu.worker->answer_call = answer_call;
  EXPECT_TRUE(send_frame(socket, DoorType::kOpened, &opened, sizeof opened).ok());
}

FakeWorker* FakePool::worker(uint32_t vgpu) {
  const std::lock_guard lock(mu_);
  return vgpus_[vgpu].worker.get();
}

void FakePool::reassign(uint32_t vgpu) {
  const std::lock_guard lock(mu_);
  vgpus_[vgpu].epoch++;
}

void FakePool::move(uint32_t vgpu, uint64_t further) {
  const std::lock_guard lock(mu_);
  Vgpu& v = vgpus_[vgpu];
  v.worker->stop();
  v.epoch++;
  v.past.push_back(std::move(v.worker));
  v.epoch += further;
  v.past.back()->set_moved(endpoint().c_str(), v.epoch - further);
}

void FakePool::checkpoint(uint32_t vgpu) {
  const std::lock_guard lock(mu_);
  vgpus_[vgpu].saved = vgpus_[vgpu].worker->checkpoint();
}

void FakePool::kill_and_recover(uint32_t vgpu) { kill(vgpu, true, true); }

void FakePool::kill(uint32_t vgpu, bool elsewhere, bool recovers) {
  const std::lock_guard lock(mu_);
  Vgpu& v = vgpus_[vgpu];
  v.recovers = recovers;
  if (recovers && v.saved.kernels.empty()) v.saved.kernels = kernels;
  v.worker->stop();
  if (elsewhere) v.epoch++;
  v.worker->disconnect();
  v.past.push_back(std::move(v.worker));
}

}  // namespace tide
