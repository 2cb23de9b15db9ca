#include "control/http_routes.h"

namespace kelp {

void HttpRoutes::add(const std::string& method, const std::string& path, HttpHandler handler) {
  handlers_[path][method] = std::move(handler);
}

HttpResponse HttpRoutes::operator()(const HttpRequest& request) const {
  const auto path = handlers_.find(request.path);
  if (path == handlers_.end()) {
    std::string known;
    for (const auto& [name, methods] : handlers_) known += " " + name;
    return http_error(404, "nothing is served at this path; there are" + known);
  }
  const auto handler = path->second.find(request.method);
  if (handler != path->second.end()) return handler->second(request);
  std::string allow;
  for (const auto& [method, unused] : path->second) allow += (allow.empty() ? "" : ", ") + method;
  HttpResponse refusal = http_error(405, "this path takes " + allow + " only");
  refusal.allow = std::move(allow);
  return refusal;
}

}  // namespace kelp
