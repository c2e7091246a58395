// Package otlp takes profiles of the OpenTelemetry protocol, over HTTP and gRPC.
//
// A Handler answers POST /v1development/profiles and the RPC
// opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export. It decodes a request, turns each of its
// profiles into Uploads, hands all of them to a Store at once and tells the sender what became of them. The door for
// all writes, package distributor, is that store.
//
// The schema is alpha and breaks between releases of the collector's modules. Everything that knows its types is in
// adapter.go, which reads requests, and fill.go, which fills profiles; guard.go knows the numbers of its fields.
//
// # What becomes of a profile
//
// The samples of an OTLP profile become one stored profile for each service.name among them. They share the request's
// tables; of those a stored profile gets what it refers to. A sample's links become the span and trace that it was
// taken in, its timestamps the moments that it was seen at, its attributes with a text labels.
//
//	service_name  the attribute service.name of the sample, else of the resource, else
//	              unknown_service:<process.executable.name>, else unknown_service
//	labels        attributes of resource and scope with a text, a whole number, a bool, or a list of one of them. Their
//	              names stay as they are: k8s.pod.name has dots
//	__name__      process_cpu if samples are counted and the period is CPU time, when each counts for one period;
//	              off_cpu for off_cpu; else the name of the period; process_cpu if it has none
//	value         the sum of a sample's values; without any, the number of its timestamps
//
// # What an answer means
//
// Success says that every profile is durable. If some are refused for what is in them, the answer is a success with
// partial_success, which counts and names them; if all are, an error that says not to try again. If any is not stored
// for a reason that passes, the answer is an error that says to try again, even though others may be stored: a profile's
// id is the sender's or is computed from the request, so what is stored twice counts once.
//
// # Sharp edges
//
// Attributes of profiles, locations and functions are not kept, nor are original payloads, nor numbers as attributes of
// samples: a thread id would make a series of every thread.
//
// Values that are given one by one for timestamps are summed: moments are kept, what each of them weighed is not.
//
// The decoder that we use takes many bytes of memory for few of a message. What a message will take is estimated before
// it is decoded, and bounded by the limit for decompressed bytes of a request.
package otlp
