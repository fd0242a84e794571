#include "transport/rdma.h"

#include <dirent.h>

namespace tide {

bool has_rdma_device() {
  DIR* folder = opendir("/sys/class/infiniband");
  if (folder == nullptr) return false;
  bool any = false;
  for (const dirent* entry; (entry = readdir(folder)) != nullptr;) any = any || entry->d_name[0] != '.';
  closedir(folder);
  return any;
}

}  // namespace tide
