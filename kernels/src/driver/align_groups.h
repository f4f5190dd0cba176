#ifndef DIRNET_SRC_DRIVER_ALIGN_GROUPS_H_
#define DIRNET_SRC_DRIVER_ALIGN_GROUPS_H_

#include "dirnet/dirnet.h"

namespace dirnet {

// Copies an activation tensor so that the bits of every group start on a unit of `unit_bytes`:
// (pixels, C bits) -> (pixels, group, ceil(C / group / unit bits) units), the spare bits of a group 0.
class GroupAlignment {
 public:
  GroupAlignment(const Conv2dShape& shape, int64_t unit_bytes);

  size_t bytes() const;
  void run(const uint64_t* input, uint8_t* output, const Parallel& parallel) const;

 private:
  int64_t pixels_;
  int64_t channels_;
  int64_t groups_;
  int64_t group_bytes_;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_ALIGN_GROUPS_H_
