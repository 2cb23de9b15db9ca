#include "control/http_routes.h"

namespace kelp {

void HttpRoutes::add(const std::string& method, const std::string& path, HttpHandler handler) {
  handlers_[path][method] = std::move(handler);
}

const HttpRoutes::Methods* HttpRoutes::find(const std::string& path) const {
  if (const auto exact = handlers_.find(path); exact != handlers_.end()) return &exact->second;
  for (const auto& [prefix, methods] : handlers_) {
    if (prefix.ends_with('/') && path.starts_with(prefix)) return &methods;
  }
  return nullptr;
}

HttpResponse HttpRoutes::operator()(const HttpRequest& request) const {
  const Methods* methods = find(request.path);
  if (methods == nullptr) {
    std::string known;
    for (const auto& [name, unused] : handlers_) known += " " + name;
    return http_error(404, "nothing is served at this path; there are" + known);
  }
  const auto handler = methods->find(request.method);
  if (handler != methods->end()) return handler->second(request);
  std::string allow;
  for (const auto& [method, unused] : *methods) allow += (allow.empty() ? "" : ", ") + method;
  HttpResponse refusal = http_error(405, "this path takes " + allow + " only");
  refusal.allow = std::move(allow);
  return refusal;
}

}  // namespace kelp
