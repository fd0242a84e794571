@0xf245e7499dd1c89f;

# What is said to etcd, and what it answers, in JSON: the messages of its version 3 API (rpc.proto, kv.proto of etcd
# 3.4) as its gateway writes them, as far as they are used. Numbers of 64 bits are text there, bytes base64.

using Cxx = import "/capnp/c++.capnp";
using Json = import "/capnp/compat/json.capnp";
$Cxx.namespace("tide::etcd");

struct KeyValue {
  key @0 :Data $Json.base64;
  createRevision @1 :UInt64 $Json.name("create_revision");
  modRevision @2 :UInt64 $Json.name("mod_revision");
  value @3 :Data $Json.base64;
  lease @4 :UInt64;
}

struct Header {
  revision @0 :UInt64;
}

struct RangeRequest {
  key @0 :Data $Json.base64;
  rangeEnd @1 :Data $Json.base64 $Json.name("range_end");
  limit @2 :UInt64;
  sortOrder @3 :Text $Json.name("sort_order");
  sortTarget @4 :Text $Json.name("sort_target");
}

struct RangeResponse {
  kvs @0 :List(KeyValue);
}

struct Compare {
  result @0 :Text;
  target @1 :Text;
  key @2 :Data $Json.base64;
  union {
    createRevision @3 :UInt64 $Json.name("create_revision");
    modRevision @4 :UInt64 $Json.name("mod_revision");
  }
}

struct PutRequest {
  key @0 :Data $Json.base64;
  value @1 :Data $Json.base64;
  lease @2 :UInt64;
}

struct DeleteRangeRequest {
  key @0 :Data $Json.base64;
}

struct RequestOp {
  union {
    requestPut @0 :PutRequest $Json.name("request_put");
    requestDeleteRange @1 :DeleteRangeRequest $Json.name("request_delete_range");
  }
}

struct TxnRequest {
  compare @0 :List(Compare);
  success @1 :List(RequestOp);
}

struct TxnResponse {
  header @0 :Header;
  succeeded @1 :Bool;
}

struct LeaseRequest {         # to grant, to keep alive, to revoke
  id @0 :UInt64 $Json.name("ID");
  ttl @1 :UInt64 $Json.name("TTL");  # seconds; to grant
}

struct LeaseRef {
  id @0 :UInt64 $Json.name("ID");
}

struct LeaseState {
  id @0 :UInt64 $Json.name("ID");
  ttl @1 :UInt64 $Json.name("TTL");  # 0: it is over
}

struct KeepAliveResponse {
  result @0 :LeaseState;
}

struct CompactionRequest {
  revision @0 :UInt64;
}

struct WatchRequest {
  createRequest @0 :RangeOfKeys $Json.name("create_request");
}

struct RangeOfKeys {
  key @0 :Data $Json.base64;
  rangeEnd @1 :Data $Json.base64 $Json.name("range_end");
}

struct Empty {}

struct Failure {
  error @0 :Text;
  code @1 :Int32;
}
