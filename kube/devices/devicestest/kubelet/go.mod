// What stands for a kubelet in tests, apart from the main module: gRPC belongs to neither program.
module github.com/braid-cni/braid/kube/devices/devicestest/kubelet

go 1.26.0

require (
	google.golang.org/grpc v1.82.1
	google.golang.org/protobuf v1.36.12-0.20260120151049-f2248ac996af
	k8s.io/kubelet v0.37.2
)

require (
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260526163538-3dc84a4a5aaa // indirect
)

tool github.com/braid-cni/braid/kube/devices/devicestest/kubelet
