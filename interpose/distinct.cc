#include "interpose/distinct.h"

#include <cuda.h>

#include <cstring>

namespace tide {
namespace {

int& pci_domain(DeviceInfo& info) { return info.attributes[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID]; }

bool same_pci(DeviceInfo& a, DeviceInfo& b) {
  return pci_domain(a) == pci_domain(b) &&
         a.attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] == b.attributes[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] &&
         a.attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID] == b.attributes[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID];
}

}  // namespace

void make_distinct(std::vector<VgpuPlace>* places) {
  for (size_t i = 0; i < places->size(); ++i) {
    DeviceInfo& info = (*places)[i].info;
    for (size_t j = 0; j < i; ++j) {
      DeviceInfo& other = (*places)[j].info;
      if (memcmp(info.uuid, other.uuid, sizeof info.uuid) == 0) {
        info.uuid[14] ^= uint8_t(0xA5);
        info.uuid[15] = uint8_t(info.uuid[15] + i);
        j = size_t(-1);  // look at all again
        continue;
      }
      if (same_pci(info, other)) {
        pci_domain(info) = 0x100 + int(i);
        j = size_t(-1);
      }
    }
  }
}

}  // namespace tide
