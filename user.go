package skyport

// User is a person or program with a certificate of ours.
type User struct {
	ID   UserID `json:"id" format:"uuid" doc:"Id, from the certificate"`
	Name string `json:"name" doc:"Common name of the certificate"`
}

// Version says what runs.
type Version struct {
	Version string `json:"version" doc:"Build version of core"`
	API     int    `json:"api" doc:"Version of the API under /v1; grows only with incompatible changes"`
}

// NodeStatus is a node with the partition that it belongs to.
type NodeStatus struct {
	Node
	Partition PartitionID    `json:"partition"`
	State     PartitionState `json:"state" doc:"State of its partition"`
	Site      string         `json:"site"`
	Flavor    string         `json:"flavor"`
	Account   string         `json:"account"`
}
