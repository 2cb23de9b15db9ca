#include "sidecar/sidecar.h"

#include <system_error>

#include "sidecar/server.h"

namespace kelp::sidecar {

Sidecar::Sidecar(std::unique_ptr<Server> server) : server_(std::move(server)) {}

Result<std::unique_ptr<Sidecar>> Sidecar::start(Options options) {
  auto server = Server::create(std::move(options));
  if (!server) return tl::unexpected(server.error());
  std::unique_ptr<Sidecar> made(new Sidecar(std::move(*server)));
  try {
    made->thread_ = std::thread([&serve = *made->server_] { serve.run(); });
  } catch (const std::system_error& error) {
    return system_error("cannot start the thread of the sidecar (RLIMIT_NPROC, or pids.max)",
                        error.code().value());
  }
  return made;
}

const Counters& Sidecar::counters() const noexcept {
  return server_->counters();
}

void Sidecar::drain() noexcept {
  server_->drain();
}

void Sidecar::cut() noexcept {
  server_->stop();
}

Sidecar::~Sidecar() {
  cut();
  if (thread_.joinable()) thread_.join();
}

}  // namespace kelp::sidecar
