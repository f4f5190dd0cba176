#include "driver/memory.h"

#include <cstdlib>

namespace dirnet {

namespace {
constexpr size_t kAlignment = 64;
}

uint8_t* allocate_aligned(size_t bytes, Contents contents) {
  // Layout: [slack][pointer to free][aligned data].
  const size_t overhead = kAlignment + sizeof(void*);
  if (bytes > SIZE_MAX - overhead) return nullptr;
  void* raw = contents == Contents::kZero ? std::calloc(bytes + overhead, 1) : std::malloc(bytes + overhead);
  if (raw == nullptr) return nullptr;
  uintptr_t address = reinterpret_cast<uintptr_t>(raw) + overhead;
  address -= address % kAlignment;
  reinterpret_cast<void**>(address)[-1] = raw;
  return reinterpret_cast<uint8_t*>(address);
}

void free_aligned(uint8_t* memory) {
  if (memory != nullptr) std::free(reinterpret_cast<void**>(memory)[-1]);
}

}  // namespace dirnet
