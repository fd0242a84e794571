// Commands that make a graph with conditional nodes of the commands between them.

#include "serve.h"

namespace tide {

CUresult serve_tideBeginGraph(Session& session, const command::BeginGraph& command, Received& q, Outputs&) {
  return session.graphs().begin(command.slot, q.header().context);
}

CUresult serve_tideConditionalHandle(Session& session, const command::ConditionalHandle& command, Received&, Outputs&) {
  return session.graphs().add_handle(command.name, command.value, command.flags);
}

CUresult serve_tideBeginConditional(Session& session, const command::BeginConditional& command, Received&, Outputs&) {
  return session.graphs().begin_conditional(command.name, command.kind, command.bodies);
}

CUresult serve_tideBeginBody(Session& session, const command::BeginBody& command, Received&, Outputs&) {
  return session.graphs().begin_body(command.index);
}

CUresult serve_tideEndConditional(Session& session, const command::EndConditional&, Received&, Outputs&) {
  return session.graphs().end_conditional();
}

CUresult serve_tideLaunchGraph(Session& session, const command::LaunchGraph&, Received& q, Outputs&) {
  CUstream stream = nullptr;
  const CUresult result = session.streams().enter(q.header().stream, &stream);
  return result != CUDA_SUCCESS ? result : session.graphs().launch(stream);
}

}  // namespace tide
