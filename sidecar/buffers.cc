#include "sidecar/buffers.h"

namespace kelp::sidecar {

Slab* Buffers::take(std::uint32_t bytes) {
  for (std::uint8_t kind = 0; kind < kKinds.size(); ++kind) {
    if (kKinds[kind].bytes < bytes) continue;
    if (!free_[kind].empty()) {
      Slab* const slab = free_[kind].back();
      free_[kind].pop_back();
      return slab;
    }
    if (Slab* const slab = make(kind)) return slab;
  }
  return nullptr;
}

Slab* Buffers::make(std::uint8_t kind) {
  if (made_[kind] == kKinds[kind].count) return nullptr;
  void* memory = nullptr;
  if (kelp_buffer_alloc(connection_, kKinds[kind].bytes + kSidePageBytes, &memory) != KELP_OK) {
    return nullptr;
  }
  ++made_[kind];
  all_.push_back(std::make_unique<Slab>(
      Slab{static_cast<std::byte*>(memory), kKinds[kind].bytes, kind, false}));
  return all_.back().get();
}

void Buffers::give(Slab* slab) {
  if (slab == nullptr) return;
  if (!slab->held) {
    free_[slab->kind].push_back(slab);
    return;
  }
  // The library keeps the memory until nothing writes there; then make() may have it.
  kelp_buffer_free(connection_, slab->data);
  --made_[slab->kind];
  std::erase_if(all_, [slab](const auto& each) { return each.get() == slab; });
}

}  // namespace kelp::sidecar
