// Command kubelet listens as the pod-resources API of a kubelet does, with the generated code of that API and the gRPC of
// Google. It answers from a file, which it reads anew each time.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

var (
	socket = flag.String("socket", "", "where to listen")
	file   = flag.String("file", "", "a ListPodResourcesResponse as JSON")
	noGet  = flag.Bool("no-get", false, "do not answer Get, as kubelets that have it as an option")
	refuse = flag.Int64("refuse", 0, "calls to refuse at first, as one that is asked too often")
	hang   = flag.Bool("hang", false, "answer nothing")
)

func main() {
	flag.Parse()
	l, err := net.Listen("unix", *socket)
	if err == nil {
		fmt.Println("listening")
		s := grpc.NewServer(grpc.UnaryInterceptor(limit))
		podresources.RegisterPodResourcesListerServer(s, server{})
		err = s.Serve(l)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

var calls atomic.Int64

func limit(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if *hang {
		time.Sleep(time.Hour)
	}
	if calls.Add(1) <= *refuse {
		return nil, status.Error(codes.ResourceExhausted, "rejected by rate limit")
	}
	return handler(ctx, req)
}

type server struct {
	podresources.UnimplementedPodResourcesListerServer
}

func (server) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	b, err := os.ReadFile(*file)
	if err != nil {
		return nil, err
	}
	list := new(podresources.ListPodResourcesResponse)
	return list, protojson.Unmarshal(b, list)
}

func (s server) Get(ctx context.Context, req *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	if *noGet {
		return nil, fmt.Errorf("PodResources API Get method disabled")
	}
	list, err := s.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, p := range list.PodResources {
		if p.Name == req.PodName && p.Namespace == req.PodNamespace {
			return &podresources.GetPodResourcesResponse{PodResources: p}, nil
		}
	}
	return nil, fmt.Errorf("pod %s in namespace %s not found", req.PodName, req.PodNamespace)
}
