// GET /volumes/ID/needles: pages of a volume's live needles, read on a thread of their own, one at
// a time. Control thread.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "control/http_server.h"
#include "dataplane/volume/catalog.h"
#include "dataplane/worker/waker.h"

namespace kelp {

class NeedleListing {
 public:
  /// `control` is told when an answer is there.
  explicit NeedleListing(Waker& control) : control_(control) {}
  /// Ends a listing under way, at its next look at the clock.
  ~NeedleListing();

  /// `catalogs` are those of the workers, in their order.
  /// Answers "/volumes/ID/needles?from=ID&limit=N&cookies=1"; `later` while the files are read.
  /// 400: a parameter that makes no sense. 404: no such path or volume. 503: one is under way.
  HttpResponse answer(const HttpRequest& request, const std::vector<const Catalog*>& catalogs);

 private:
  struct Job {
    std::atomic<bool> stop{false};
    std::atomic<bool> done{false};
    HttpResponse response;  ///< once done
  };

  Waker& control_;
  std::shared_ptr<Job> job_;
  std::thread thread_;
};

}  // namespace kelp
